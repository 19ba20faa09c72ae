"""What samples show: faces, what they were asked for, and no copies of the training pictures."""

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zmagic.guidance.faces.crops import Faces

from ..evaluators.dlib_faces import shows_face
from . import clip, recognizer
from .data import Portraits, read_portraits
from .metrics import frechet_distance
from .running import EVALUATORS, Run
from .sheets import save_sheet

__all__ = ["figures", "nearest", "seen"]

CLIP = "CLIP evaluator"

# Samples shown with the training pictures nearest to them, and how many of these.
SHOWN, NEIGHBORS = 8, 5

# The attributes that a caption always tells, or tells by their absence.
ASKED = ("hair color", "beard", "glasses", "hat", "clothing color")

# Side of the pictures whose pixels are compared: a copy that is a little off stays a copy.
COMPARED_SIDE = 32
PART = 256


def figures(samples: Tensor, asked: Sequence[dict], train: Portraits, run: Run) -> dict:
    """What samples ``[N, 3, H, W]`` show, their distances to real pictures, and their neighbors.

    ``asked`` are the labels whose captions the samples were made from. The samples are compared
    with the pictures of the test split in the features of two evaluators, and so are the real
    pictures of the validation split: their distance is the floor. As many pictures of each are
    taken, since the distance depends on the number.
    """
    real = read_portraits(run.data, "validation").pictures()
    others = read_portraits(run.data, "test").pictures()
    count = min(len(samples), len(real), len(others))
    result = {
        "samples": len(samples),
        "faces found": {"samples": _faces(samples), "real pictures": _faces(others[:count])},
        "pictures of a set": count,
    }
    evaluators = _evaluators(train)
    if CLIP in evaluators:
        result[f"asked and seen by {CLIP}"] = seen(evaluators[CLIP](samples), asked)
    for name, features in evaluators.items():
        sets = [features(pictures[:count]) for pictures in (others, samples, real)]
        result[f"distance of samples by {name}"] = round(frechet_distance(*sets[:2]), 4)
        result[f"distance of real pictures by {name}"] = round(
            frechet_distance(sets[0], sets[2]), 4
        )
    known = _small(train.images)
    known = torch.cat((known, known.flip(3)))
    for name, pictures in {"samples": samples, "real pictures": others}.items():
        distances, _ = nearest(pictures[:count], known, 1)
        result[f"pixel distance to the nearest training picture, {name}"] = {
            "median": round(float(distances.median()), 4),
            "least": round(float(distances.min()), 4),
        }
    _, places = nearest(samples[:SHOWN], known, NEIGHBORS)
    rows = torch.cat((samples[:SHOWN, None], _with_mirrored(train, places)), dim=1)
    save_sheet(run.file("_neighbors.png"), rows.flatten(0, 1), columns=1 + NEIGHBORS)
    return result


def seen(features: Tensor, asked: Sequence[dict]) -> dict[str, float]:
    """Share of samples in which the evaluator sees what their captions ask for, by attribute.

    ``features [N, D]`` are the evaluator's of the samples.
    """
    network, tokens = _towers(), clip.evaluator_tokens()
    answers = clip.answered(network, tokens, features, asked, ASKED)
    return {name: clip.share_of(found) for name, found in answers.items()}


def _faces(pictures: Tensor) -> float:
    return round(sum(shows_face(picture) for picture in pictures.cpu()) / len(pictures), 4)


def nearest(pictures: Tensor, known: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Distances ``[N, count]`` to the nearest known pictures, and their places.

    Root mean square of the differences of small pictures, on the scale of [0, 1].

    Args:
        pictures: ``[N, 3, H, W]`` in [0, 1].
        known: ``[M, 3, 32, 32]`` in [0, 1].
    """
    small = F.interpolate(pictures, size=COMPARED_SIDE, mode="area").flatten(1)
    distances = torch.cdist(small, known.flatten(1)) / small.shape[1] ** 0.5
    found = distances.topk(count, largest=False)
    return found.values, found.indices


def _evaluators(train: Portraits) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return the evaluators that were trained: each has a command of its own."""
    evaluators = {}
    if (EVALUATORS / "clip_evaluator.safetensors").is_file():
        evaluators[CLIP] = lambda pictures: clip.picture_features(_towers(), pictures)
    if (EVALUATORS / "recognizer_evaluator.safetensors").is_file():
        network = recognizer.load_evaluator()
        # Nobody knows the points of samples: all faces are taken where they are on average.
        face = Faces.from_points(train.points.mean(0, keepdim=True), 1.0)
        evaluators["recognizer evaluator"] = lambda pictures: F.normalize(
            recognizer.embeddings(network, pictures, face)
        )
    return evaluators


@cache
def _towers() -> nn.Module:
    """The evaluating CLIP, loaded once."""
    return clip.load_evaluator()


def _small(images: Tensor) -> Tensor:
    """8-bit pictures as small ones in [0, 1], a part at a time: all at once are gigabytes."""
    parts = (part.float() / 255.0 for part in images.split(PART))
    return torch.cat([F.interpolate(part, size=COMPARED_SIDE, mode="area") for part in parts])


def _with_mirrored(portraits: Portraits, places: Tensor) -> Tensor:
    """Pictures by their places among the pictures followed by their mirror images."""
    count = len(portraits)
    pictures = portraits.pictures(places % count)
    mirrored = (places >= count)[..., None, None, None]
    return torch.where(mirrored, pictures.flip(-1), pictures)
