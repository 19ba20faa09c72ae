"""The energy nodes of patterns, and those of perceptual distance, inside the real host."""

import shutil

import comfy.model_management
import folder_paths
import pytest
import torch
from safetensors.torch import save_file

from zmagic.guidance.energies import Perceptual
from zmagic.guidance.energy import RunEnergy
from zmagic.guidance.networks.lpips import BACKBONES
from zmagic.host.lpips_networks import HEADS_OF
from zmagic.nodes.pattern_energy_nodes import (
    ZMagicBrightnessMap,
    ZMagicSeamless,
    ZMagicSharpness,
    ZMagicSymmetry,
)
from zmagic.nodes.perceptual_nodes import ZMagicLoadLpips, ZMagicPerceptual

COMMON = {"weight": 1.0, "start": 0.0, "end": 1.0}
PATTERNS = [ZMagicBrightnessMap, ZMagicSeamless, ZMagicSymmetry, ZMagicSharpness]
SQUEEZENET = "squeezenet1_1-b8a52dc0.pth"


def picture(batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 40, 30, 3)


def defaults(node) -> dict:
    """The values that the node's widgets begin with, and a picture where it asks for one."""
    inputs = {e.id: e.default for e in node.define_schema().inputs if hasattr(e, "default")}
    given = {"reference": picture()} if "reference" in required(node) else {}
    return {**{key: value for key, value in inputs.items() if value is not None}, **given}


def required(node) -> dict:
    return node.INPUT_TYPES()["required"]


def run(node, **inputs):
    """The node's only output in a prompt, which the host runs in inference mode."""
    with torch.inference_mode():
        (output,) = node.execute(**{**defaults(node), **inputs}).args
    return output


def slope(condition, side: int = 64) -> torch.Tensor:
    """The gradient of the condition's energy for random pictures."""
    energy = condition.energy
    energy = energy.begin_run() if isinstance(energy, RunEnergy) else energy
    image = torch.rand(2, 3, side, side, requires_grad=True)
    energy(image, condition.region and condition.region[:, None]).sum().backward()
    return image.grad


@pytest.mark.parametrize("node", PATTERNS)
def test_appends_a_condition_with_gradients(node):
    first = run(node)
    (condition,) = first
    assert f"{condition.name} Energy" == node.GET_SCHEMA().display_name
    assert slope(condition).isfinite().all() and slope(condition).any()
    longer = run(node, conditions=first, region=torch.ones(20, 20), **{**COMMON, "weight": 0.5})
    assert longer[:1] == first and longer[1].weight == 0.5


@pytest.mark.parametrize(
    ("node", "inputs", "message"),
    [
        (
            ZMagicBrightnessMap,
            {"dark": 0.6, "bright": 0.4},
            "Brightness Map Energy: expected 'dark' below 'bright', got 0.6 and 0.4",
        ),
        (
            ZMagicBrightnessMap,
            {"reference": picture()[..., :2]},
            "Brightness Map Energy: 'reference' must be an RGB image",
        ),
        (ZMagicSeamless, {"start": 0.6, "end": 0.2}, "Seamless Energy: expected 'start' not after"),
    ],
)
def test_errors_name_the_node(node, inputs, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        run(node, **inputs)


# ---------------------------------------------------------------- perceptual distance


def weights(kind: str) -> dict[str, torch.Tensor]:
    """A classifier with random weights, under torchvision's names."""
    layers = BACKBONES[kind].layers().state_dict()
    return {
        f"features.{key}": torch.randn(value.shape) / max(1, value[0].numel()) ** 0.5
        for key, value in layers.items()
    }


def heads(kind: str) -> dict[str, torch.Tensor]:
    channels = BACKBONES[kind].channels
    return {f"lin{k}.model.1.weight": torch.rand(1, c, 1, 1) for k, c in enumerate(channels)}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Files as people have them: a classifier of each kind that is small, and all heads."""
    folder = tmp_path_factory.mktemp("models") / "lpips"
    folder.mkdir()
    with torch.inference_mode(False):
        torch.manual_seed(1)
        torch.save(weights("SqueezeNet 1.1"), folder / SQUEEZENET)
        save_file(weights("AlexNet"), folder / "alexnet.safetensors")
        for kind, stem in HEADS_OF.items():
            torch.save(heads(kind), folder / f"{stem}.pth")
    return folder


@pytest.fixture
def folder(written, tmp_path, monkeypatch):
    """The models folder of a test, with these files in it."""
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    shutil.copytree(written, tmp_path / "lpips")
    yield tmp_path / "lpips"
    comfy.model_management.unload_all_models()


def test_the_list_names_what_is_there_and_what_can_be_had(folder):
    assert required(ZMagicLoadLpips)["model_name"][1]["options"] == [
        SQUEEZENET,
        "alexnet.safetensors",
        "alexnet-owt-7be5be79.pth (not installed)",
        "vgg16-397923af.pth (not installed)",
    ]


@pytest.mark.parametrize("name", [SQUEEZENET, "alexnet.safetensors"])
def test_a_loaded_network_guides_and_its_own_reference_is_the_goal(folder, name):
    lpips = run(ZMagicLoadLpips, model_name=name)
    assert run(ZMagicLoadLpips, model_name=name) is lpips
    reference = torch.rand(1, 64, 64, 3)
    (condition,) = run(ZMagicPerceptual, lpips=lpips, reference=reference)
    assert condition.networks == (lpips,) and isinstance(condition.energy, Perceptual)
    comfy.model_management.load_models_gpu([lpips.patcher])
    assert slope(condition).isfinite().all() and slope(condition).any()
    run_of_it = condition.energy.begin_run()
    assert run_of_it(reference.movedim(-1, 1)).item() < 1e-6
    assert run_of_it(torch.rand(1, 3, 64, 64)).item() > 0.01


class Marker:
    """What a training leaves in its checkpoints: an object that is no tensor."""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "squeeze.pth").unlink(), "file of linear heads 'squeeze.pth' not found"),
        (lambda f: (f / SQUEEZENET).unlink(), f"classifier for LPIPS '{SQUEEZENET}' not found"),
        (
            lambda f: torch.save({"a": torch.ones(1)}, f / SQUEEZENET),
            f"{SQUEEZENET} holds the weights of no classifier",
        ),
        (
            lambda f: shutil.copy(f / "vgg.pth", f / "squeeze.pth"),
            f"squeeze.pth holds linear heads for VGG16, {SQUEEZENET} is a SqueezeNet",
        ),
        (
            lambda f: torch.save({"a": Marker()}, f / SQUEEZENET),
            f"{SQUEEZENET} cannot be read as weights: it holds Python objects beside",
        ),
        (
            lambda f: (f / SQUEEZENET).write_text("<!doctype html><html>"),
            f"{SQUEEZENET} cannot be read as weights: it is a web page",
        ),
        (
            lambda f: torch.save({"a": 1, "b": 2}, f / SQUEEZENET),
            f"{SQUEEZENET} holds something else than weights",
        ),
    ],
)
def test_what_is_missing_or_no_network_is_said(folder, change, message):
    change(folder)
    with pytest.raises(ValueError, match=f"^Load LPIPS Network: {message}"):
        run(ZMagicLoadLpips, model_name=SQUEEZENET)


def test_a_message_says_where_to_get_what_is_missing(folder):
    (folder / "squeeze.pth").unlink()
    (folder / SQUEEZENET).unlink()
    with pytest.raises(ValueError, match="download.pytorch.org/models/squeezenet1_1.*5 MB"):
        run(ZMagicLoadLpips, model_name=SQUEEZENET)
    with pytest.raises(ValueError, match="pip download --no-deps lpips.*BSD-2-Clause"):
        shutil.copy(folder / "alexnet.safetensors", folder / "other.safetensors")
        (folder / "alex.pth").unlink()
        run(ZMagicLoadLpips, model_name="other.safetensors")
