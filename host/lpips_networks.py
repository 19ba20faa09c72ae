"""LPIPS networks from files, under the host's memory management.

A classifier of torchvision, and the linear heads that the authors' package has for it, which lie
beside it: ``alex.pth``, ``vgg.pth`` or ``squeeze.pth``.
"""

from pathlib import Path

import comfy.utils
from torch import Tensor

from ..guidance.networks.file_kinds import mishap
from ..guidance.networks.lpips import BACKBONES, backbone_kind, lpips_from_weights
from ..guidance.wording import one_line
from .model_files import ModelKind, Source, find_file, list_files, offered
from .networks import Network, file_stamp, shared

__all__ = ["classifier_names", "find_classifier", "load_lpips"]

EXTENSIONS = (".safetensors", ".pth", ".pt")
CLASSIFIERS = ModelKind("classifier for LPIPS", ("lpips",), EXTENSIONS)
HEADS = ModelKind("file of linear heads", ("lpips",), EXTENSIONS)

LICENSE = "BSD-3-Clause, trained on ImageNet"
WHERE = "https://download.pytorch.org/models/"

# Torchvision's files, the one that LPIPS is at its fastest with first.
PUBLISHED = {
    "squeezenet1_1-b8a52dc0.pth": "5 MB",
    "alexnet-owt-7be5be79.pth": "233 MB",
    "vgg16-397923af.pth": "528 MB",
}

# The names of the heads in the authors' package.
HEADS_OF = {"AlexNet": "alex", "VGG16": "vgg", "SqueezeNet 1.1": "squeeze"}
HEADS_SOURCE = Source(
    "from the package lpips of the Python Package Index: 'pip download --no-deps lpips', unpack "
    "the .whl as a zip, folder lpips/weights/v0.1",
    "10 KB",
    "BSD-2-Clause",
)


def classifier_names() -> list[str]:
    """List the classifiers that are there, and torchvision's, marked where they are not."""
    heads = set(HEADS_OF.values())
    there = [name for name in list_files(CLASSIFIERS) if Path(name).stem not in heads]
    return offered(there, list(PUBLISHED))


def find_classifier(name: str) -> Path:
    """Find the file of a classifier.

    Raises:
        ValueError: it is not there; the sentence says where to get it.
    """
    plain = next((known for known in PUBLISHED if str(name).startswith(known)), "")
    example = plain or next(iter(PUBLISHED))
    source = Source(WHERE + example, PUBLISHED[example], LICENSE, name=plain or example)
    return find_file(CLASSIFIERS, name, source)


def load_lpips(path: Path) -> Network:
    """Load the LPIPS network of a classifier and of the heads for it.

    Raises:
        ValueError: a file cannot be read, the classifier is none that LPIPS knows, or there are no
            heads for it.
    """
    # The classifier's kind names the heads, which are part of what is shared.
    weights = _weights(path)
    heads = _heads_for(backbone_kind(weights, path.name))
    return shared("lpips", path, file_stamp(heads), lambda: _network(path, weights, heads))


def _network(path: Path, weights: dict[str, Tensor], heads: Path) -> Network:
    module = lpips_from_weights(weights, _weights(heads), path.name, heads.name)
    return Network(module, path.name)


def _heads_for(kind: str) -> Path:
    """The file of heads, in whichever format it is there."""
    stem = HEADS_OF[kind]
    found = [name for name in list_files(HEADS) if Path(name).stem == stem]
    return find_file(HEADS, (found or [f"{stem}.pth"])[0], HEADS_SOURCE)


def _weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file; of PyTorch's own format nothing but tensors is read."""
    try:
        weights = comfy.utils.load_torch_file(str(path), safe_load=True)
    except Exception as error:  # of safetensors, of torch's unpickler
        raise ValueError(f"{path.name} cannot be read as weights: {_why(path, error)}") from error
    if not isinstance(weights, dict) or not all(isinstance(v, Tensor) for v in weights.values()):
        raise ValueError(f"{path.name} holds something else than weights: {_expected()}")
    return weights


def _why(path: Path, error: Exception) -> str:
    known = mishap(path) or ""
    if known and not known.startswith(("a checkpoint", "one of weights")):
        return f"it is {known}"
    if "weights_only" in str(error).lower():
        return (
            "it holds Python objects beside them, which may run code and are not loaded.\n"
            f"E{_expected()[1:]}"
        )
    return f"download it again\n({one_line(error)})"


def _expected() -> str:
    return f"expected torchvision's {', '.join(BACKBONES)}, as .pth or safetensors"
