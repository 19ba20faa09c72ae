"""Attributes of a condition set: the energy that guides, and the distances that are reported.

A distance is the paper's (method section 8), measured twice: by the network that guided, and by one
that did not. An attribute is added by one class here.
"""

from abc import ABC, abstractmethod
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from .condition_sets import ConditionSet, Portrait
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
from zmagic.guidance.energies.class_scores import ClassScores
from zmagic.guidance.energies.energy import Energy
from zmagic.guidance.energies.face_identity import mean_embedding
from zmagic.guidance.energies.label_maps import LabelMap
from zmagic.guidance.energies.style import gram, mean_grams
from zmagic.guidance.face_location import FaceLocator

from .judges.dlib_faces import DlibFaces, DlibLandmarks

__all__ = ["ATTRIBUTES", "BY_DLIB", "Attribute"]

OWNER = "benchmarks"
# Distances to a picture in which dlib finds no face. Of embeddings: that of clear strangers, whom
# it tells apart at 0.6. Of points: half a picture.
NO_FACE, NO_POINTS = 1.0, 0.5
# The block of the image tower whose Gram matrix is the style, as in FreeDoM.
STYLE_BLOCKS = (3,)
# Directions along which the judge of colours compares them.
SLICES = 32


class Attribute(ABC):
    """One attribute of the tables.

    Args:
        guide: the networks that guide.
        judge: those that do not.
    """

    name: str
    # Kinds of networks that it needs, of those that guide and of those that judge.
    guided_by: tuple[str, ...] = ()
    judged_by: tuple[str, ...] = ()

    def __init__(self, guide: Networks, judge: Networks):
        self.guide, self.judge = guide, judge

    @abstractmethod
    def energy(self, wanted: ConditionSet) -> Energy:
        """What guides a picture to the set."""

    @property
    def networks(self) -> tuple:
        """What the energy runs on."""
        return ()

    @abstractmethod
    def distance(self, picture: Tensor, wanted: ConditionSet, networks: Networks) -> float:
        """Of ``picture [1, 3, H, W]`` by ``networks``, those that guide or those that judge."""

    def by_guide(self, picture: Tensor, wanted: ConditionSet) -> float:
        """The distance as the network sees it that guided."""
        return self.distance(picture, wanted, self.guide)

    def by_judge(self, picture: Tensor, wanted: ConditionSet) -> float | None:
        """The distance as another network sees it; None where it cannot see the reference."""
        return self.distance(picture, wanted, self.judge)


class Identity(Attribute):
    """Distance of the unit embeddings of picture and person."""

    name = "identity"
    guided_by = judged_by = ("recogniser",)

    def energy(self, wanted: ConditionSet) -> Energy:
        recognizer = self.guide.recogniser
        reference = self._embedding(wanted.person.picture, wanted.person, self.guide)
        return FaceIdentity(recognizer, reference, FaceLocator(fixed=wanted.layout.face))

    @property
    def networks(self) -> tuple:
        return (self.guide.recogniser.network,)

    def distance(self, picture: Tensor, wanted: ConditionSet, networks: Networks) -> float:
        person = self._embedding(wanted.person.picture, wanted.person, networks)
        return float((self._embedding(picture, wanted.layout, networks) - person).norm())

    @staticmethod
    def _embedding(picture: Tensor, where: Portrait, networks: Networks) -> Tensor:
        return mean_embedding(networks.recogniser, picture, where.face)


class IdentityByDlib(Identity):
    """Identity, judged by dlib, which finds the face itself."""

    judged_by = ()

    def __init__(self, guide: Networks, judge: Networks):
        super().__init__(guide, judge)
        self.faces = DlibFaces()
        self._reference = lru_cache(None)(lambda person: self.faces.embedding(person.picture[0]))

    def by_judge(self, picture: Tensor, wanted: ConditionSet) -> float | None:
        reference = self._reference(wanted.person)
        if reference is None:
            return None
        found = self.faces.embedding(picture[0])
        return NO_FACE if found is None else float((found - reference).norm())


class LandmarkPoints(Attribute):
    """Distance of the vectors of coordinates, in sides of the face's crop."""

    name = "landmarks"
    guided_by = judged_by = ("landmarks",)

    def energy(self, wanted: ConditionSet) -> Energy:
        target = self._points(wanted.layout.picture, wanted, self.guide)
        return Landmarks(self.guide.landmarks, target, FaceLocator(fixed=wanted.layout.face))

    @property
    def networks(self) -> tuple:
        return (self.guide.landmarks.network,)

    def distance(self, picture: Tensor, wanted: ConditionSet, networks: Networks) -> float:
        target = self._points(wanted.layout.picture, wanted, networks)
        return float((self._points(picture, wanted, networks) - target).norm())

    @staticmethod
    def _points(picture: Tensor, wanted: ConditionSet, networks: Networks) -> Tensor:
        return networks.landmarks.in_crop(picture, wanted.layout.face)  # [1, P, 2]


class LandmarkPointsByDlib(LandmarkPoints):
    """Landmarks, judged by dlib: root mean square distance of 68 points in sides of the picture."""

    judged_by = ()

    def __init__(self, guide: Networks, judge: Networks):
        super().__init__(guide, judge)
        self.points = DlibLandmarks()
        self._reference = lru_cache(None)(lambda portrait: self.points(portrait.picture[0]))

    def by_judge(self, picture: Tensor, wanted: ConditionSet) -> float | None:
        reference = self._reference(wanted.layout)
        if reference is None:
            return None
        found = self.points(picture[0])
        if found is None:
            return NO_POINTS
        return float((found - reference).square().sum(1).mean().sqrt())


class Layout(Attribute):
    """Distance of the parser's maps of scores (root mean square over pixels and classes)."""

    name = "segmentation"
    guided_by = judged_by = ("parser",)

    def energy(self, wanted: ConditionSet) -> Energy:
        parser = self.guide.parser
        maps = parser(wanted.layout.picture)[0]
        scores = ClassScores.judged(maps)
        target = LabelMap(scores.probabilities(maps), maps.new_ones(1, 1, *maps.shape[-2:]), OWNER)
        return Segmentation(lambda image: parser(image)[0], scores, target)

    @property
    def networks(self) -> tuple:
        return (self.guide.parser.network,)

    def distance(self, picture: Tensor, wanted: ConditionSet, networks: Networks) -> float:
        difference = networks.parser(picture)[0] - networks.parser(wanted.layout.picture)[0]
        return float(difference.square().mean().sqrt())


class Prompt(Attribute):
    """1 - cosine of picture and caption."""

    name = "text"
    guided_by = judged_by = ("clip",)

    def energy(self, wanted: ConditionSet) -> Energy:
        clip = self.guide.clip
        targets = clip.texts([wanted.person.caption])
        return Text(clip.image, clip.preprocessing, targets, torch.ones(1))

    @property
    def networks(self) -> tuple:
        return (self.guide.clip.image,)

    def distance(self, picture: Tensor, wanted: ConditionSet, networks: Networks) -> float:
        clip = networks.clip
        seen = clip.image(clip.preprocessing(picture))
        return 1.0 - float(F.cosine_similarity(seen, clip.texts([wanted.person.caption])))


class Textures(Attribute):
    """Frobenius distance of the Gram matrices of CLIP's features."""

    name = "style"
    guided_by = judged_by = ("clip",)

    def energy(self, wanted: ConditionSet) -> Energy:
        features = self.guide.clip.after_blocks(STYLE_BLOCKS)
        preprocessing = self.guide.clip.preprocessing
        targets = mean_grams(features(preprocessing(wanted.layout.picture)), torch.ones(1))
        return Style(features, preprocessing, targets)

    @property
    def networks(self) -> tuple:
        return (self.guide.clip.after_blocks(STYLE_BLOCKS),)

    def distance(self, picture: Tensor, wanted: ConditionSet, networks: Networks) -> float:
        features = networks.clip.after_blocks(STYLE_BLOCKS)
        matrices = [
            gram(features(networks.clip.preprocessing(x))[-1])
            for x in (picture, wanted.layout.picture)
        ]
        return float((matrices[0] - matrices[1]).norm())


class Palette(Attribute):
    """Energy of the colours; judged by the sliced Wasserstein distance of the pixels in sRGB."""

    name = "palette"

    def energy(self, wanted: ConditionSet) -> Energy:
        return ColorPalette(reference=wanted.layout.picture)

    def distance(self, picture: Tensor, wanted: ConditionSet, networks: Networks) -> float:
        if not networks.judging:
            return float(self.energy(wanted)(picture))
        directions = torch.randn(SLICES, 3, generator=torch.Generator().manual_seed(0))
        directions = F.normalize(directions, dim=1)
        sorted_colors = [
            (directions @ x.flatten(2)[0]).sort(1).values for x in (picture, wanted.layout.picture)
        ]
        return float((sorted_colors[0] - sorted_colors[1]).abs().mean())


class Edges(Attribute):
    """Energy of the sketch; judged by 1 - correlation of the magnitudes of grey gradients."""

    name = "sketch"

    def energy(self, wanted: ConditionSet) -> Energy:
        return Sketch(wanted.layout.picture)

    def distance(self, picture: Tensor, wanted: ConditionSet, networks: Networks) -> float:
        if not networks.judging:
            return float(self.energy(wanted)(picture))
        pair = torch.stack([_edges(x) for x in (picture, wanted.layout.picture)])
        return 1.0 - float(torch.corrcoef(pair)[0, 1])


def _edges(picture: Tensor) -> Tensor:
    grey = picture.mean(1)[0]  # [H, W]
    return (grey.diff(dim=0)[:, 1:].square() + grey.diff(dim=1)[1:].square()).sqrt().flatten()


ATTRIBUTES: dict[str, type[Attribute]] = {
    kind.name: kind for kind in (Identity, LandmarkPoints, Layout, Prompt, Textures, Palette, Edges)
}
# For those whose judging network is dlib's.
BY_DLIB: dict[str, type[Attribute]] = {
    kind.name: kind for kind in (IdentityByDlib, LandmarkPointsByDlib)
}
