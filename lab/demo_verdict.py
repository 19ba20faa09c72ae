"""Ask evaluators, which never guide, whether the demo's pictures obey.

    python -m lab.demo_verdict output/demo

Reads what ``scripts/demo.py`` left in a folder: the pictures of the prompt alone, of FreeDoM and of
Z-Magic. A second recognizer says how much of the person is seen, a second parser how much of the
layout, and a second CLIP whether a picture shows what the prompt says. They agree with the demo's
energies if person and layout are seen better in each picture of Z-Magic than in that of the prompt
alone, and the prompt is seen in all of Z-Magic's. Writes ``verdict.json`` into the folder; the exit
status is 0 if they agree.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from .networks import Networks  # first: it brings the host and the pack

# isort: split
from zmagic.guidance.faces.crops import Faces, aligned_crops
from zmagic.host.demo_model import LAYOUT_FILE, MAN_FILE, WOMAN_FILE, face_in, load_photograph
from zmagic.host.demo_networks import demo_locator

from .command_line import described
from .graphs import Evaluator, api, inputs_of, prompts_of

__all__ = ["FILE", "OURS", "PLAIN", "RUNS", "agree", "identities", "layouts", "verdict"]

PLAIN, OURS = "prompt alone", "Z-Magic"
RUNS = (PLAIN, "FreeDoM", OURS)
FILE = "verdict.json"

# Outputs of Load Z-Magic Demo to the files they are from.
PORTRAITS = {4: WOMAN_FILE, 5: MAN_FILE, 6: LAYOUT_FILE}

# What is measured of each picture of each run: the more, the better.
Values = Mapping[str, Sequence[float]]


def main() -> int:
    parser = described("demo_verdict", __doc__)
    parser.add_argument("folder", type=Path, help="What the demo wrote.")
    folder = parser.parse_args().folder
    found = verdict(folder)
    (folder / FILE).write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(json.dumps(found, indent=1))
    return 0 if found["agrees"] else 1


def verdict(folder: Path) -> dict:
    """What the evaluators see in the demo's pictures.

    Returns:
        ``identity``, ``layout`` and ``prompt``: by run, a number for each picture, of the prompt
        for each of its sayings; and ``agrees``.

    Raises:
        FileNotFoundError: the folder has no pictures of a run.
    """
    graph = api("demo")
    (face,) = inputs_of(graph, "ZMagicFaceIdentity")
    (layout,) = inputs_of(graph, "ZMagicSegmentation")
    person, parts = PORTRAITS[face["reference"][1]], PORTRAITS[layout["target_image"][1]]
    pictures = {run: pictures_of(folder, run) for run in RUNS}
    networks, words = Networks(evaluating=True), Evaluator()
    found = {
        "identity": _each(pictures, lambda run: identities(networks, run, person)),
        "layout": _each(pictures, lambda run: layouts(networks, run, parts)),
        "prompt": {
            name: [_rounded(words.margins(picture, prompts_of(graph))) for picture in run.split(1)]
            for name, run in pictures.items()
        },
    }
    return {**found, "agrees": agree(**found)}


def pictures_of(folder: Path, run: str) -> Tensor:
    """The pictures ``[N, 3, H, W]`` of a run.

    Raises:
        FileNotFoundError: there are none.
    """
    name = run.replace(" ", "_")
    files = sorted(folder.glob(f"{name}_*.png"))
    if not files:
        raise FileNotFoundError(f"{folder} has no pictures called '{name}_1.png' and so on")
    return torch.cat([load_photograph(file) for file in files]).movedim(-1, 1)


@torch.inference_mode()
def identities(networks: Networks, pictures: Tensor, person: Path) -> Tensor:
    """Cosines ``[N]`` of the faces in ``pictures [N, 3, H, W]`` with that of a portrait."""
    faces = Faces.stacked(demo_locator(networks.landmarks).in_picture(pictures))
    wanted = _embedded(networks, load_photograph(person).movedim(-1, 1), face_in(person))
    return F.cosine_similarity(_embedded(networks, pictures, faces), wanted)


def _embedded(networks: Networks, pictures: Tensor, faces: Faces) -> Tensor:
    return networks.recognizer(aligned_crops(pictures, faces, networks.recognizer.size))


@torch.inference_mode()
def layouts(networks: Networks, pictures: Tensor, wanted: Path) -> Tensor:
    """Shares ``[N]`` of the pixels that show the same part (hair, skin ...) as in a portrait."""
    parts, there = (
        networks.parser(seen)[0].argmax(1)
        for seen in (pictures, load_photograph(wanted).movedim(-1, 1))
    )
    return (parts == there).float().mean((1, 2))


def agree(identity: Values, layout: Values, prompt: Mapping[str, Sequence[dict]]) -> bool:
    """Whether the evaluators see what the energies say, in every picture."""
    better = all(
        after > before
        for values in (identity, layout)
        for after, before in zip(values[OURS], values[PLAIN], strict=True)
    )
    return better and all(margin > 0.0 for seen in prompt[OURS] for margin in seen.values())


def _rounded(margins: Mapping[str, float]) -> dict[str, float]:
    return {question: round(margin, 4) for question, margin in margins.items()}


def _each(pictures: Mapping[str, Tensor], measure: Callable[[Tensor], Tensor]) -> Values:
    return {
        run: [round(value, 4) for value in measure(each).tolist()] for run, each in pictures.items()
    }


if __name__ == "__main__":
    raise SystemExit(main())
