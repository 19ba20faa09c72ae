"""Attributes of a condition set: the energy that guides, and the distances that are reported.

A distance is the paper's (method section 8), measured twice: by the network that guided, and by one
that did not. All condition sets of a batch are one energy, each picture with its own target. An
attribute is added by one class here.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from .condition_sets import ConditionSet
from .networks import Networks

# isort: split
from zmagic.guidance.energies import (
    ColorPalette,
    FaceIdentity,
    Landmarks,
    Segmentation,
    Sketch,
    Style,
    Text,
)
from zmagic.guidance.energies.style import gram
from zmagic.guidance.energy import Energy
from zmagic.guidance.faces.crops import Faces, aligned_crops
from zmagic.guidance.faces.location import FaceLocator
from zmagic.guidance.pictures.class_scores import ClassScores
from zmagic.guidance.pictures.label_maps import LabelMap
from zmagic.host.openclip import OpenClip

from .evaluators.dlib_faces import DlibFaces, DlibLandmarks

__all__ = ["ATTRIBUTES", "BY_DLIB", "Attribute"]

# Distances to a picture in which dlib finds no face: for embeddings that of clear strangers, whom
# it tells apart at 0.6; for points half a picture.
NO_FACE, NO_POINTS = 1.0, 0.5
# The block of the image tower whose Gram matrix is the style, as in FreeDoM.
STYLE_BLOCKS = (3,)
# Directions along which the evaluator of colors compares them, for the sliced distance.
SLICES = 32


class Attribute(ABC):
    """One attribute of the tables.

    Args:
        guide: the attribute networks, which guide.
        evaluator: the evaluators, which never guide.
    """

    name: str
    # Kinds of networks that it needs, of attribute networks and of evaluators.
    guided_by: tuple[str, ...] = ()
    evaluated_by: tuple[str, ...] = ()

    def __init__(self, guide: Networks, evaluator: Networks):
        self.guide, self.evaluator = guide, evaluator

    @abstractmethod
    def energy(self, sets: Sequence[ConditionSet]) -> Energy:
        """The energy that guides a batch of pictures, each to its own set."""

    @abstractmethod
    def distances(
        self, pictures: Tensor, sets: Sequence[ConditionSet], networks: Networks
    ) -> Tensor:
        """Return the distances ``[B]`` of ``pictures [B, 3, H, W]`` from their sets.

        They are measured as ``networks`` see the pictures.

        The unit is the attribute's own; lower is better.
        """

    def by_guide(self, pictures: Tensor, sets: Sequence[ConditionSet]) -> list[float]:
        """The distances as the network sees them that guided."""
        return self.distances(pictures, sets, self.guide).tolist()

    def by_evaluator(self, pictures: Tensor, sets: Sequence[ConditionSet]) -> list[float | None]:
        """The distances as another network sees them; None where it cannot see the reference."""
        return self.distances(pictures, sets, self.evaluator).tolist()

    def real_by_guide(self, sets: Sequence[ConditionSet]) -> list[float | None]:
        """The distances of real pictures that satisfy the conditions, as by ``by_guide``."""
        return self._real(sets, self.guide)

    def real_by_evaluator(self, sets: Sequence[ConditionSet]) -> list[float | None]:
        """The distances of real pictures that satisfy the conditions, as by ``by_evaluator``."""
        return self._real(sets, self.evaluator)

    def _real(self, sets: Sequence[ConditionSet], networks: Networks) -> list[float | None]:
        """Distances of the layouts, from which most conditions are taken; None without one."""
        return self.distances(_layouts(sets), sets, networks).tolist()


def _people(sets: Sequence[ConditionSet]) -> Tensor:
    return torch.cat([wanted.person.picture for wanted in sets])


def _layouts(sets: Sequence[ConditionSet]) -> Tensor:
    return torch.cat([wanted.layout.picture for wanted in sets])


def _faces_of_people(sets: Sequence[ConditionSet]) -> Faces:
    return Faces.stacked([wanted.person.face for wanted in sets])


def _faces_of_layouts(sets: Sequence[ConditionSet]) -> Faces:
    return Faces.stacked([wanted.layout.face for wanted in sets])


class Identity(Attribute):
    """Distance of the unit embeddings of picture and person."""

    name = "identity"
    guided_by = evaluated_by = ("recognizer",)

    def energy(self, sets: Sequence[ConditionSet]) -> Energy:
        references = self._embeddings(_people(sets), _faces_of_people(sets), self.guide)
        locator = FaceLocator(fixed=_faces_of_layouts(sets))
        return FaceIdentity(self.guide.recognizer, references, locator)

    def distances(
        self, pictures: Tensor, sets: Sequence[ConditionSet], networks: Networks
    ) -> Tensor:
        people = self._embeddings(_people(sets), _faces_of_people(sets), networks)
        return (self._embeddings(pictures, _faces_of_layouts(sets), networks) - people).norm(dim=1)

    def _real(self, sets: Sequence[ConditionSet], networks: Networks) -> list[float | None]:
        """Distances of other portraits of the same people."""
        return [self._of_another(wanted, networks) for wanted in sets]

    def _of_another(self, wanted: ConditionSet, networks: Networks) -> float | None:
        if wanted.another is None:
            return None
        embeddings = [
            self._embeddings(portrait.picture, portrait.face, networks)
            for portrait in (wanted.person, wanted.another)
        ]
        return float((embeddings[0] - embeddings[1]).norm())

    @staticmethod
    def _embeddings(pictures: Tensor, faces: Faces, networks: Networks) -> Tensor:
        recognizer = networks.recognizer
        return F.normalize(recognizer(aligned_crops(pictures, faces, recognizer.size)))


class IdentityByDlib(Identity):
    """Identity whose evaluator is dlib, which finds the face itself."""

    evaluated_by = ()

    def __init__(self, guide: Networks, evaluator: Networks):
        super().__init__(guide, evaluator)
        self.faces = DlibFaces()
        self._reference = lru_cache(None)(lambda person: self.faces.embedding(person.picture[0]))

    def by_evaluator(self, pictures: Tensor, sets: Sequence[ConditionSet]) -> list[float | None]:
        return [self._evaluated(*pair) for pair in zip(pictures, sets, strict=True)]

    def real_by_evaluator(self, sets: Sequence[ConditionSet]) -> list[float | None]:
        return [
            None if wanted.another is None else self._evaluated(wanted.another.picture[0], wanted)
            for wanted in sets
        ]

    def _evaluated(self, picture: Tensor, wanted: ConditionSet) -> float | None:
        reference = self._reference(wanted.person)
        if reference is None:
            return None
        found = self.faces.embedding(picture)
        return NO_FACE if found is None else float((found - reference).norm())


class LandmarkPoints(Attribute):
    """Distance of the vectors of coordinates, in sides of the face's crop."""

    name = "landmarks"
    guided_by = evaluated_by = ("landmarks",)

    def energy(self, sets: Sequence[ConditionSet]) -> Energy:
        targets = self._points(_layouts(sets), sets, self.guide)
        locator = FaceLocator(fixed=_faces_of_layouts(sets))
        return Landmarks(self.guide.landmarks, targets, locator)

    def distances(
        self, pictures: Tensor, sets: Sequence[ConditionSet], networks: Networks
    ) -> Tensor:
        targets = self._points(_layouts(sets), sets, networks)
        return (self._points(pictures, sets, networks) - targets).flatten(1).norm(dim=1)

    @staticmethod
    def _points(pictures: Tensor, sets: Sequence[ConditionSet], networks: Networks) -> Tensor:
        return networks.landmarks.in_crop(pictures, _faces_of_layouts(sets))  # [B, P, 2]


class LandmarkPointsByDlib(LandmarkPoints):
    """Landmarks whose evaluator is dlib.

    It reports the root mean square distance of 68 points, in sides of the picture.
    """

    evaluated_by = ()

    def __init__(self, guide: Networks, evaluator: Networks):
        super().__init__(guide, evaluator)
        self.points = DlibLandmarks()
        self._reference = lru_cache(None)(lambda portrait: self.points(portrait.picture[0]))

    def by_evaluator(self, pictures: Tensor, sets: Sequence[ConditionSet]) -> list[float | None]:
        return [self._evaluated(*pair) for pair in zip(pictures, sets, strict=True)]

    def real_by_evaluator(self, sets: Sequence[ConditionSet]) -> list[float | None]:
        return self.by_evaluator(_layouts(sets), sets)

    def _evaluated(self, picture: Tensor, wanted: ConditionSet) -> float | None:
        reference = self._reference(wanted.layout)
        if reference is None:
            return None
        found = self.points(picture)
        if found is None:
            return NO_POINTS
        return float((found - reference).square().sum(1).mean().sqrt())


class Layout(Attribute):
    """Distance of the parser's maps of scores (root mean square over pixels and classes)."""

    name = "segmentation"
    guided_by = evaluated_by = ("parser",)

    def energy(self, sets: Sequence[ConditionSet]) -> Energy:
        parser = self.guide.parser
        maps = parser(_layouts(sets))[0]
        scores = ClassScores.inferred(maps)
        everywhere = maps.new_ones(len(maps), 1, *maps.shape[-2:])
        target = LabelMap(scores.probabilities(maps), everywhere)
        return Segmentation(parser, scores, target)

    def distances(
        self, pictures: Tensor, sets: Sequence[ConditionSet], networks: Networks
    ) -> Tensor:
        difference = networks.parser(pictures)[0] - networks.parser(_layouts(sets))[0]
        return difference.square().flatten(1).mean(1).sqrt()


class Prompt(Attribute):
    """1 - cosine of picture and caption."""

    name = "text"
    guided_by = evaluated_by = ("clip",)

    def energy(self, sets: Sequence[ConditionSet]) -> Energy:
        clip = self.guide.clip
        return Text(clip.image, clip.preprocessing, self._texts(sets, clip)[:, None], torch.ones(1))

    def distances(
        self, pictures: Tensor, sets: Sequence[ConditionSet], networks: Networks
    ) -> Tensor:
        clip = networks.clip
        seen = clip.image(clip.preprocessing(pictures))
        return 1.0 - F.cosine_similarity(seen, self._texts(sets, clip).to(seen))

    def _real(self, sets: Sequence[ConditionSet], networks: Networks) -> list[float | None]:
        """Distances of the portraits that the captions were written for."""
        return self.distances(_people(sets), sets, networks).tolist()

    @staticmethod
    def _texts(sets: Sequence[ConditionSet], clip: OpenClip) -> Tensor:
        return clip.texts([wanted.person.caption for wanted in sets])  # [B, D]


class Textures(Attribute):
    """Frobenius distance of the Gram matrices of CLIP's features."""

    name = "style"
    guided_by = evaluated_by = ("clip",)

    def energy(self, sets: Sequence[ConditionSet]) -> Energy:
        features = self.guide.clip.after_blocks(STYLE_BLOCKS)
        preprocessing = self.guide.clip.preprocessing
        targets = [gram(feature) for feature in features(preprocessing(_layouts(sets)))]
        return Style(features, preprocessing, targets)

    def distances(
        self, pictures: Tensor, sets: Sequence[ConditionSet], networks: Networks
    ) -> Tensor:
        features = networks.clip.after_blocks(STYLE_BLOCKS)
        mine, others = (
            gram(features(networks.clip.preprocessing(x))[-1]) for x in (pictures, _layouts(sets))
        )
        return (mine - others).flatten(1).norm(dim=1)


class Palette(Attribute):
    """Energy of the colors; its evaluator is the sliced Wasserstein distance of pixels in sRGB."""

    name = "palette"

    def energy(self, sets: Sequence[ConditionSet]) -> Energy:
        return ColorPalette(reference=_layouts(sets))

    def distances(
        self, pictures: Tensor, sets: Sequence[ConditionSet], networks: Networks
    ) -> Tensor:
        if not networks.evaluating:
            return self.energy(sets)(pictures)
        directions = torch.randn(SLICES, 3, generator=torch.Generator().manual_seed(0))
        directions = F.normalize(directions, dim=1)
        mine, others = (
            (directions @ x.flatten(2)).sort(2).values for x in (pictures, _layouts(sets))
        )
        return (mine - others).abs().mean((1, 2))


class Edges(Attribute):
    """Energy of the sketch; its evaluator is 1 - correlation of the sizes of gray gradients."""

    name = "sketch"

    def energy(self, sets: Sequence[ConditionSet]) -> Energy:
        return Sketch(_layouts(sets))

    def distances(
        self, pictures: Tensor, sets: Sequence[ConditionSet], networks: Networks
    ) -> Tensor:
        if not networks.evaluating:
            return self.energy(sets)(pictures)
        mine, others = (_edges(x) for x in (pictures, _layouts(sets)))
        return 1.0 - F.cosine_similarity(_centered(mine), _centered(others))


def _edges(pictures: Tensor) -> Tensor:
    gray = pictures.mean(1)  # [B, H, W]
    across, along = gray.diff(dim=1)[:, :, 1:], gray.diff(dim=2)[:, 1:]
    return (across.square() + along.square()).sqrt().flatten(1)


def _centered(values: Tensor) -> Tensor:
    return values - values.mean(1, keepdim=True)


ATTRIBUTES: dict[str, type[Attribute]] = {
    kind.name: kind for kind in (Identity, LandmarkPoints, Layout, Prompt, Textures, Palette, Edges)
}
# Those whose evaluator is dlib.
BY_DLIB: dict[str, type[Attribute]] = {
    kind.name: kind for kind in (IdentityByDlib, LandmarkPointsByDlib)
}
