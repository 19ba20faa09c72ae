"""Networks of energies that have several: those of parts, each once."""

import pytest
import torch

from zmagic.guidance.energies import FaceIdentity, FaceOutput, Landmarks, Segmentation
from zmagic.guidance.energy import networks_of
from zmagic.guidance.faces.location import FaceLocator
from zmagic.guidance.faces.points import FivePoints
from zmagic.guidance.pictures.class_scores import ClassScores
from zmagic.guidance.pictures.label_maps import LabelMap

from .energy_table import network_output
from .small_networks import Convolutions, landmark_network, recognizer

RECOGNIZER, LANDMARKS = recognizer(), landmark_network()
OUTPUT = network_output(torch.rand(1, 3, 8, 8, dtype=torch.float64), "vector", "squared error")
LOCATOR = FaceLocator(points=FivePoints(LANDMARKS))
TARGET = LabelMap(torch.ones(1, 2, 8, 8) / 2, torch.ones(1, 1, 8, 8))
SCORES = ClassScores(2, False)


@pytest.mark.parametrize(
    ("energy", "networks"),
    [
        (FaceOutput(OUTPUT, LOCATOR), (OUTPUT.network, LANDMARKS.network)),
        (
            FaceIdentity(RECOGNIZER, torch.ones(16), LOCATOR),
            (RECOGNIZER.network, LANDMARKS.network),
        ),
        (Landmarks(LANDMARKS, torch.ones(1, 68, 2), LOCATOR), (LANDMARKS.network,)),
        (Segmentation(lambda image: image[:, :2], SCORES, TARGET), ()),
    ],
)
def test_an_energy_names_the_networks_of_its_parts_once(energy, networks):
    named = networks_of(energy)
    assert len(named) == len(networks)
    assert all(mine is other for mine, other in zip(named, networks, strict=True))


def test_a_parser_may_answer_with_several_outputs():
    parser, picture = Convolutions(2), torch.rand(1, 3, 8, 8, dtype=torch.float64)
    one, several = (
        Segmentation(answer, SCORES, TARGET)(picture)
        for answer in (parser, lambda image: (parser(image), image))
    )
    assert torch.equal(one, several) and one > 0.0
