"""The authors' LPIPS, from the package registry, with random weights in place of the classifiers'.

The linear heads in it are the published ones.
"""

import re
from pathlib import Path

import torch
from torch import Tensor, nn

from .registry_packages import imported, package_folder

__all__ = ["HEADS", "backbone_weights", "lpips_folder", "published_lpips"]

PACKAGE = "lpips==0.1.4"

# Their names of the classifiers, and of the heads' files, by ours.
HEADS = {"AlexNet": "alex", "VGG16": "vgg", "SqueezeNet 1.1": "squeeze"}


def lpips_folder(packages) -> Path:
    """The folder of the package, fetched if it is not there; see ``package_folder``."""
    return package_folder(packages, PACKAGE)


def published_lpips(folder: Path, kind: str) -> nn.Module:
    """The authors' network, with the published heads on a random classifier, in float64."""
    with torch.inference_mode(False):
        network = imported("lpips", folder).LPIPS(net=HEADS[kind], pnet_rand=True, verbose=False)
    return network.double().requires_grad_(False)


def backbone_weights(network: nn.Module) -> dict[str, Tensor]:
    """The weights of its classifier under torchvision's names."""
    found = {re.sub(r"slice\d+", "features", k): v for k, v in network.net.state_dict().items()}
    return {key: value.clone() for key, value in found.items()}
