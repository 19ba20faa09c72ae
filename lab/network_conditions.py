"""Conditions on the attribute networks that people have, at their real sizes, with random weights.

What they cost depends on the shapes alone; what they ask for means nothing.
"""

import itertools
from dataclasses import dataclass

import comfy.model_management
import torch
from torch import Tensor

from zmagic.guidance.conditions import Condition
from zmagic.guidance.energies import FaceIdentity, Segmentation, Text
from zmagic.guidance.energy import Energy
from zmagic.guidance.faces.location import FaceLocator
from zmagic.guidance.faces.networks import FaceRecognizer
from zmagic.guidance.pictures.class_scores import ClassScores
from zmagic.guidance.pictures.label_maps import LabelMap
from zmagic.guidance.pictures.preprocessing import Preprocessing
from zmagic.host.image_networks import IMAGENET
from zmagic.host.networks import Network
from zmagic.host.openclip_training import NORMALIZATIONS

from .face_parser import CLASSES
from .random_models import fill
from .subjects import NETWORKS

__all__ = ["network_conditions"]


def network_conditions(number: int) -> tuple[Condition, ...]:
    """Make conditions that take the ``NETWORKS`` in turn, each of which is in memory once."""
    names = list(itertools.islice(itertools.cycle(NETWORKS), number))
    networks = {name: _random(name) for name in dict.fromkeys(names)}
    return tuple(
        Condition(name, ENERGIES[name](networks[name], seed)) for seed, name in enumerate(names)
    )


def _random(name: str) -> Network:
    build, dtype, _ = NETWORKS[name]
    on_cpu = comfy.model_management.get_torch_device().type == "cpu"
    with torch.inference_mode(False), torch.no_grad():
        module = build().eval()
        fill(module)
    # As the loaders choose it: no processor is fast in half precision.
    return Network(module, name, torch.float32 if on_cpu else dtype)


def _text(network: Network, seed: int) -> Energy:
    side = NETWORKS[network.name][2]
    preprocessing = Preprocessing(
        (side, side), *NORMALIZATIONS["OpenAI"], fit="crop", interpolation="bicubic"
    )
    prompt = _embedding(network.module.output_dim, seed)
    return Text(network, preprocessing, prompt[None], torch.ones(1))


def _identity(network: Network, seed: int) -> Energy:
    side = NETWORKS[network.name][2]
    recognizer = FaceRecognizer(network, Preprocessing((side, side), (0.5,), (0.5,)))
    person = _embedding(network.module.fc.out_features, seed)
    return FaceIdentity(recognizer, person, FaceLocator())


def _segmentation(network: Network, seed: int) -> Energy:
    side = NETWORKS[network.name][2]
    mean, std = (tuple(value / 255.0 for value in values) for values in IMAGENET)
    generator = torch.Generator().manual_seed(seed)
    indices = torch.randint(CLASSES, (1, side // 8, side // 8), generator=generator)
    return Segmentation(
        _Prepared(network, Preprocessing((side, side), mean, std)),
        ClassScores(CLASSES, are_probabilities=False),
        LabelMap.from_indices(indices, CLASSES),
    )


ENERGIES = {
    "CLIP ViT-L-14": _text,
    "ArcFace R50": _identity,
    "BiSeNet": _segmentation,
}


@dataclass(frozen=True)
class _Prepared:
    """A parser that takes pictures in [0, 1]."""

    network: Network
    preprocessing: Preprocessing

    @property
    def networks(self) -> tuple[Network, ...]:
        """The network it runs on; see the Energy protocol."""
        return (self.network,)

    def __call__(self, image: Tensor) -> Tensor:
        return self.network(self.preprocessing(image))


def _embedding(features: int, seed: int) -> Tensor:
    return torch.randn(features, generator=torch.Generator().manual_seed(seed))
