"""Every energy, made with small networks of small references: the shared tests run on each row."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from zmagic.guidance.energies import (
    BrightnessMap,
    ColorPalette,
    Depth,
    Energy,
    FaceIdentity,
    FaceOutput,
    ImageSimilarity,
    Landmarks,
    NetworkOutput,
    Normals,
    PatchSimilarity,
    Perceptual,
    Pose,
    Preference,
    ReferenceImage,
    Seamless,
    Segmentation,
    Sharpness,
    Sketch,
    Style,
    Symmetry,
    Text,
)
from zmagic.guidance.energies.image_similarity import reference_patches
from zmagic.guidance.energies.network_output import features_first
from zmagic.guidance.energies.preference import Scores, aesthetic, for_a_prompt, of_opposites
from zmagic.guidance.energies.style import gram
from zmagic.guidance.faces.crops import Faces
from zmagic.guidance.faces.location import FaceLocator
from zmagic.guidance.pictures.class_scores import ClassScores
from zmagic.guidance.pictures.label_maps import LabelMap
from zmagic.guidance.pictures.regions import reference_view
from zmagic.guidance.poses.looking import people_in
from zmagic.guidance.poses.maps import points_of_maps

from .small_networks import (
    CLIP_VIEW,
    FEATURES,
    VIEW,
    Convolutions,
    blocks,
    landmark_network,
    lpips_network,
    recognizer,
    tower,
)

__all__ = ["ALL_REFERENCES_FOR_EACH_PICTURE", "ENERGIES", "FILLING"]

COLORS = torch.tensor([[0.15, 0.27, 0.33], [0.16, 0.62, 0.56], [0.91, 0.77, 0.42]])
CLASSES = 4
FACE = Faces.from_boxes(torch.tensor([[0.15, 0.1, 0.8, 0.9]]))
AT_THE_FACE, FILLING = FaceLocator(fixed=FACE), FaceLocator()


def text(pictures: Tensor, views: int = 1) -> Text:
    """Return a text energy whose prompts have the embeddings of the pictures."""
    network = tower()
    prompts = network(CLIP_VIEW(pictures))[:, None]  # [R, 1, D]
    energy = Text(network, CLIP_VIEW, prompts, torch.ones(1), views, least_crop=0.4).begin_run()
    energy.begin_step(3)
    return energy


def text_with_negative(pictures: Tensor) -> Text:
    """Return a text energy with three prompts, one of them negative, for all pictures."""
    prompts = torch.randn(3, FEATURES, generator=torch.Generator().manual_seed(2))
    return Text(tower(), CLIP_VIEW, prompts, torch.tensor([1.0, 2.0, -0.5]))


def image_similarity(pictures: Tensor) -> ImageSimilarity:
    """Return an energy whose references are the pictures and their mirror images."""
    network = tower()
    both = torch.cat((pictures, pictures.flip(-1)))
    weights = torch.linspace(1.0, 3.0, len(both))
    return ImageSimilarity(network, CLIP_VIEW, network(CLIP_VIEW(both)), weights)


def patch_similarity(pictures: Tensor) -> PatchSimilarity:
    """Return an energy whose references are the upper halves of the pictures."""
    network, counts = Convolutions(FEATURES), torch.zeros_like(pictures[:, :1])
    counts[..., : pictures.shape[-2] // 2, :] = 1.0
    views, seen_counts = reference_view(pictures, counts, VIEW)
    patches = reference_patches(network(views), torch.ones(len(pictures)), seen_counts)
    return PatchSimilarity(network, VIEW, patches)


def preference(pictures: Tensor, scores: Callable[[Tensor], Scores]) -> Preference:
    """Return an energy of scores that are made of a few random embeddings."""
    embeddings = torch.randn(4, FEATURES, generator=torch.Generator().manual_seed(3))
    return Preference(tower(), CLIP_VIEW, scores(embeddings))


def style(pictures: Tensor) -> Style:
    """Return an energy with a style for each picture."""
    network = blocks()
    return Style(network, CLIP_VIEW, [gram(maps) for maps in network(CLIP_VIEW(pictures))])


def face_identity(pictures: Tensor, locator: FaceLocator) -> FaceIdentity:
    """Return an energy with a person for each picture."""
    network = recognizer()
    return FaceIdentity(network, network(F.interpolate(pictures, (32, 32))), locator)


def landmarks(pictures: Tensor, locator: FaceLocator, points: str = "all") -> Landmarks:
    """Return an energy whose targets are the landmarks of each picture."""
    network = landmark_network()
    return Landmarks(network, network.in_crop(pictures, FACE), locator, points)


def network_output(pictures: Tensor, form: str, distance: str) -> NetworkOutput:
    """Return an energy whose target is what a network puts out for each picture."""
    network = Convolutions(5, form, scale=0.3)
    target, scores = features_first(network(VIEW(pictures))), ClassScores(5, False)
    if distance == "cross entropy":
        target = scores.probabilities(target)
    return NetworkOutput(network, VIEW, target, distance, scores)


class Nearness(Convolutions):
    """A network of positive values."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image).exp()


def depth(pictures: Tensor) -> Depth:
    """Return an energy whose target is the relief of each picture."""
    estimator = Nearness(1, scale=0.3)
    return Depth(estimator, estimator(pictures))


def normals(pictures: Tensor) -> Normals:
    """Return an energy whose target are the normals of each picture."""
    estimator = Convolutions(3)
    return Normals(estimator, estimator(pictures))


class PointMaps(Convolutions):
    """A network that finds the key points of one person."""

    size, points = (16, 12), 4

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        return points_of_maps(super().forward(crops), self.size)


def pose(pictures: Tensor) -> Pose:
    """Return an energy whose targets are the points of two people in each picture."""
    finder = PointMaps(4, scale=0.3)
    boxes = torch.tensor([[[0.1, 0.1, 0.5, 0.9], [0.5, 0.2, 1.1, 0.9]]])
    return Pose(finder, people_in(finder, pictures, boxes.repeat(len(pictures), 1, 1), -1e9)[0])


def segmentation(
    pictures: Tensor,
    distance: str = "cross entropy",
    compare: str = "probabilities",
    softmax: bool = False,
) -> Segmentation:
    """Return an energy whose target is the layout of each picture."""
    parser, scores = Convolutions(CLASSES, softmax=softmax), ClassScores(CLASSES, softmax)
    maps = parser(pictures)
    values = maps if compare == "logits" else scores.probabilities(maps)
    target = LabelMap(values, torch.ones_like(values[:, :1]))
    return Segmentation(parser, scores, target, distance, compare)


def painted_segmentation(pictures: Tensor) -> Segmentation:
    """Return an energy of a layout of bright and dark parts, with a part that is free."""
    indices = (3.999 * pictures.mean(1)).long()
    indices[..., 20:] = 255
    target = LabelMap.from_indices(indices, CLASSES)
    weights = torch.tensor([1.0, 2.0, 0.0, 0.5])
    return Segmentation(
        Convolutions(CLASSES), ClassScores(CLASSES, False), target, class_weights=weights
    )


# The name of a row and how it is made of reference pictures [R, 3, h, w], R 1 or the batch size.
ENERGIES: dict[str, Callable[[Tensor], Energy]] = {
    "palette of a picture": lambda pictures: ColorPalette(pictures, lightness=0.5),
    "palette with proportions": lambda pictures: ColorPalette(None, COLORS, torch.arange(1, 4)),
    "palette of colors": lambda pictures: ColorPalette(None, COLORS),
    "sketch of a photograph": lambda pictures: Sketch(pictures, line_width=0.06),
    "sketch of a drawing": lambda pictures: Sketch(pictures, drawing=True, line_width=0.06),
    "wide sketch": lambda pictures: Sketch(pictures, line_width=0.2),
    "reference": lambda pictures: ReferenceImage(pictures, blur=0.08),
    "reference pixel by pixel": lambda pictures: ReferenceImage(pictures, blur=0.0),
    "reference through a wide blur": lambda pictures: ReferenceImage(pictures, blur=0.4),
    "brightness of a map": lambda pictures: BrightnessMap(pictures, blur=0.04),
    "seamless": lambda pictures: Seamless(),
    "seamless from top to bottom": lambda pictures: Seamless("top and bottom"),
    "symmetry": lambda pictures: Symmetry(blur=0.05),
    "symmetry of both kinds": lambda pictures: Symmetry("both", blur=0.0),
    "symmetry of a half turn": lambda pictures: Symmetry("half turn", blur=0.2),
    "sharpness": lambda pictures: Sharpness(0.2),
    "softness": lambda pictures: Sharpness(-0.9, detail=0.06),
    "text": lambda pictures: text(pictures),
    "text with crops": lambda pictures: text(pictures, views=3),
    "text with negative": text_with_negative,
    "image similarity": image_similarity,
    "preference for a prompt": lambda pictures: preference(
        pictures, lambda embeddings: for_a_prompt(embeddings[:1], 100.0)
    ),
    "preference of opposites": lambda pictures: preference(
        pictures, lambda embeddings: of_opposites(embeddings[:2], embeddings[2:], 10.0)
    ),
    "aesthetic preference": lambda pictures: preference(
        pictures, lambda embeddings: aesthetic([(embeddings[:1], torch.ones(1))])
    ),
    "image similarity of patches": patch_similarity,
    "style": style,
    "perceptual": lambda pictures: Perceptual(lpips_network(), pictures),
    "identity": lambda pictures: face_identity(pictures, AT_THE_FACE),
    "identity of a portrait": lambda pictures: face_identity(pictures, FILLING),
    "landmarks": lambda pictures: landmarks(pictures, AT_THE_FACE),
    "landmarks of a portrait's mouth": lambda pictures: landmarks(pictures, FILLING, "mouth"),
    "output of a face": lambda pictures: FaceOutput(
        network_output(pictures, "vector", "squared error"), AT_THE_FACE
    ),
    "output": lambda pictures: network_output(pictures, "vector", "squared error"),
    "output by cosine of maps": lambda pictures: network_output(pictures, "map", "cosine"),
    "output by classes of tokens": lambda pictures: network_output(
        pictures, "tokens", "cross entropy"
    ),
    "pose": pose,
    "depth": depth,
    "normals": normals,
    "segmentation": segmentation,
    "segmentation by squares": lambda pictures: segmentation(pictures, "squared error"),
    "segmentation by logits": lambda pictures: segmentation(pictures, "squared error", "logits"),
    "segmentation by a softmax": lambda pictures: segmentation(pictures, softmax=True),
    "painted segmentation": painted_segmentation,
}

ALL_REFERENCES_FOR_EACH_PICTURE = {"image similarity", "image similarity of patches"}
