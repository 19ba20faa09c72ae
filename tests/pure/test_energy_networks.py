"""An energy names all networks that it runs on, each once: nobody else has to know them."""

import pytest
import torch
from torch import nn

from zmagic.guidance import energies
from zmagic.guidance.conditions import Condition
from zmagic.guidance.energies import (
    ColorPalette,
    FaceIdentity,
    FaceOutput,
    ImageSimilarity,
    Landmarks,
    NetworkOutput,
    ReferenceImage,
    Segmentation,
    Sketch,
    Style,
    Text,
)
from zmagic.guidance.faces.location import FaceLocator
from zmagic.guidance.faces.networks import FaceRecognizer, LandmarkNetwork
from zmagic.guidance.faces.points import FivePoints
from zmagic.guidance.pictures.class_scores import ClassScores
from zmagic.guidance.pictures.label_maps import LabelMap
from zmagic.guidance.pictures.preprocessing import Preprocessing

NETWORK, POINTS = nn.Identity(), nn.Identity()
INPUT = Preprocessing((8, 8))
PICTURE, ONE = torch.rand(1, 3, 8, 8), torch.ones(1)
LANDMARK_NETWORK = LandmarkNetwork(POINTS, INPUT, points=5)
LOCATOR = FaceLocator(points=FivePoints(LANDMARK_NETWORK))
OUTPUT = NetworkOutput(NETWORK, INPUT, torch.ones(1, 4))
TARGET = LabelMap(torch.ones(1, 2, 8, 8) / 2, torch.ones(1, 1, 8, 8))


class Parser:
    """A parser that is more than its network."""

    networks = (NETWORK,)

    def __call__(self, image):
        return (image[:, :2],)


ENERGIES = [
    (ColorPalette(PICTURE), ()),
    (Sketch(PICTURE), ()),
    (ReferenceImage(PICTURE), ()),
    (Text(NETWORK, INPUT, torch.ones(1, 4), ONE), (NETWORK,)),
    (ImageSimilarity(NETWORK, INPUT, torch.ones(1, 4), ONE), (NETWORK,)),
    (Style(NETWORK, INPUT, [torch.ones(4, 4)]), (NETWORK,)),
    (OUTPUT, (NETWORK,)),
    (FaceOutput(OUTPUT, LOCATOR), (NETWORK, POINTS)),
    (FaceOutput(OUTPUT, FaceLocator()), (NETWORK,)),
    (FaceIdentity(FaceRecognizer(NETWORK, INPUT), torch.ones(4), LOCATOR), (NETWORK, POINTS)),
    (Landmarks(LANDMARK_NETWORK, torch.ones(1, 5, 2), LOCATOR), (POINTS,)),  # twice the same
    (Segmentation(Parser(), ClassScores(2, False), TARGET), (NETWORK,)),
    (Segmentation(lambda image: image[:, :2], ClassScores(2, False), TARGET), ()),
]


@pytest.mark.parametrize(("energy", "networks"), ENERGIES)
def test_an_energy_names_its_networks(energy, networks):
    named = Condition("condition", energy).networks
    assert len(named) == len(networks)
    assert all(mine is other for mine, other in zip(named, networks, strict=True))


def test_none_of_the_energies_is_left_out():
    kinds = {getattr(energies, name) for name in energies.__all__}
    kinds -= {energies.Energy, energies.RandomEnergy, energies.RunEnergy}
    assert kinds == {type(energy) for energy, _ in ENERGIES}


def test_a_parser_may_answer_with_several_outputs():
    both = [
        Segmentation(parser, ClassScores(2, False), TARGET)(PICTURE)
        for parser in (Parser(), lambda image: image[:, :2])
    ]
    assert torch.equal(*both) and both[0] > 0.0
