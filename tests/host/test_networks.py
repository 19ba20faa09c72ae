"""Attribute networks under the host's memory management: files, references, precision, loading."""

import os
import time
from dataclasses import replace

import comfy.model_management
import folder_paths
import nodes as host_nodes
import pytest
import torch
from torch import nn

from zmagic.guidance.conditions import Condition
from zmagic.guidance.energies import NetworkOutput
from zmagic.guidance.pictures.preprocessing import Preprocessing
from zmagic.guidance.settings import preset
from zmagic.host.demo_model import load_autoencoder, load_unet
from zmagic.host.gradients import differentiable
from zmagic.host.hooks import HostSettings, attach
from zmagic.host.image_networks import ImageNetwork
from zmagic.host.model_files import (
    ABSENT,
    ModelKind,
    Source,
    find_file,
    list_files,
    offered,
    usable_name,
)
from zmagic.host.networks import Network, content_of, file_stamp, shared, stamp_of

from .demo_sampling import empty_latent, said
from .derivatives import one_thread

KIND = ModelKind("test network", ("zmagic_first", "zmagic_second"), (".onnx",))
SOURCE = Source("https://example.org/networks", "1 MB", "CC0")


# ---------------------------------------------------------------- files


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Two folders of models, of which the host knows one by another path as well."""
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    extra = tmp_path / "elsewhere"
    known = {**folder_paths.folder_names_and_paths, "zmagic_second": ([str(extra)], set())}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", known)
    first, second = tmp_path / "models" / "zmagic_first", tmp_path / "models" / "zmagic_second"
    for folder in (first, second, extra):
        folder.mkdir(parents=True)
    return first, second, extra


def test_files_are_listed_from_all_folders_and_below(folders):
    first, second, extra = folders
    (first / "deep").mkdir()
    for path in (first / "b.onnx", first / "deep" / "a.ONNX", second / "b.onnx", extra / "c.onnx"):
        path.touch()
    (first / "notes.txt").touch()
    assert list_files(KIND) == ["b.onnx", "c.onnx", "deep/a.ONNX"]
    assert find_file(KIND, "b.onnx", SOURCE) == first / "b.onnx"
    assert find_file(KIND, "deep/a.ONNX", SOURCE) == first / "deep" / "a.ONNX"
    assert find_file(KIND, "c.onnx", SOURCE) == extra / "c.onnx"


def test_folders_that_are_links_are_followed(folders, tmp_path):
    outside = tmp_path / "disk"
    outside.mkdir()
    (outside / "big.onnx").touch()
    try:
        (folders[0] / "linked").symlink_to(outside, target_is_directory=True)
    except OSError:
        pytest.skip("no right to make symbolic links")
    assert list_files(KIND) == ["linked/big.onnx"]
    assert find_file(KIND, "linked/big.onnx", SOURCE).is_file()


@pytest.mark.parametrize("name", ["", "gone.onnx", "deep"])
def test_a_missing_file_is_explained_in_one_sentence(folders, name):
    (folders[0] / "deep").mkdir()
    (folders[2] / "c.onnx").touch()
    with pytest.raises(ValueError) as caught:
        find_file(KIND, name, SOURCE)
    message = str(caught.value)
    assert message.splitlines() == [
        f"test network '{name}' not found. Put it in {folders[0]}",
        "Get it: https://example.org/networks (1 MB, license: CC0)",
        "Searched: zmagic_first, zmagic_second; there are c.onnx",
    ]


def test_another_file_than_the_recommended_one_has_another_place(folders):
    source = replace(SOURCE, name="usual", place="packs/usual")
    with pytest.raises(ValueError) as caught:
        find_file(KIND, "other.onnx", source)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith(f"'other.onnx' not found. Put it in {folders[0]}")
    assert lines[1].startswith("Or get usual: https://example.org/networks")
    assert lines[1].endswith(f"for {folders[0] / 'packs' / 'usual'}")
    with pytest.raises(ValueError) as caught:
        find_file(KIND, f"usual{ABSENT}", source)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith(f"'usual' not found. Put it in {folders[0] / 'packs' / 'usual'}")
    assert lines[1].startswith("Get it: ")


def test_of_many_files_the_nearest_names_are_quoted(folders):
    for i in range(40):
        (folders[0] / f"network_{i}.onnx").touch()
    with pytest.raises(ValueError) as caught:
        find_file(KIND, "network_7x.onnx", SOURCE)
    last = str(caught.value).splitlines()[-1]
    assert "network_7.onnx" in last and last.endswith("and 37 more")


@pytest.mark.parametrize("name", [7, 1.5, None, True, [], ["a.onnx"], {}, {"a": 1}])
def test_what_is_no_name_is_said(folders, name):
    with pytest.raises(ValueError, match="^expected the name of a test network, got "):
        find_file(KIND, name, SOURCE)
    assert "must be the name of a file, got " in usable_name(name, "weights")
    assert stamp_of(lambda: find_file(KIND, name, SOURCE), name) == (repr(name),)


@pytest.mark.parametrize("name", ["x" * 300, "d" * 300 + "/x.onnx", "a\0b", "\ud800", "~", "\n"])
def test_names_that_no_file_can_have_are_names_of_missing_files(folders, name):
    with pytest.raises(ValueError, match="^test network .* not found") as caught:
        find_file(KIND, name, SOURCE)
    str(caught.value).encode()  # it can be written to a log
    assert len(str(caught.value)) < 500


def test_folders_that_are_in_themselves_end(folders):
    """Each folder is entered once, by its own place rather than by a link's."""
    (folders[0] / "real" / "deep").mkdir(parents=True)
    (folders[0] / "real" / "deep" / "a.onnx").touch()
    (folders[0] / "b.onnx").touch()
    for name in ("loop", "again", "real/up", "a_link"):
        target = folders[0] / "real" if name == "a_link" else folders[0]
        (folders[0] / name).symlink_to(target, target_is_directory=True)
    (folders[0] / "broken.onnx").symlink_to(folders[0] / "nowhere")
    if hasattr(os, "mkfifo"):
        os.mkfifo(folders[0] / "pipe.onnx")
    started = time.process_time()
    assert list_files(KIND) == ["b.onnx", "real/deep/a.onnx"]
    assert time.process_time() - started < 1.0


def test_lists_mark_what_is_not_there():
    assert offered(["b", "a"], ["a", "z"]) == ["a", "b", f"z{ABSENT}"]
    assert offered([], ["z"]) == [f"z{ABSENT}"]


@pytest.mark.parametrize("name", ["../secret.onnx", "deep/../../secret.onnx", "{absolute}"])
def test_no_name_leads_out_of_the_folders(folders, name):
    secret = folders[0].parent / "secret.onnx"
    secret.touch()
    with pytest.raises(ValueError, match="not found"):
        find_file(KIND, name.format(absolute=secret), SOURCE)


# ---------------------------------------------------------------- networks


@pytest.fixture
def landmarks(face_networks):
    return ImageNetwork(
        face_networks / "fr_landmark.onnx", Preprocessing((64, 64), channels="gray")
    )


def test_weights_are_shared_as_long_as_somebody_holds_them(face_networks, landmarks):
    other = ImageNetwork(landmarks.path, Preprocessing((64, 64), (0.5,), (0.5,), "gray"))
    assert other.network is landmarks.network
    inner = landmarks.returning(landmarks.activations()[:2])
    assert inner.network is not landmarks.network
    assert len(inner(torch.rand(1, 3, 32, 32))) == 2


def test_a_file_that_has_changed_is_loaded_anew(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"one")
    made = [shared("test", path, (), lambda: Network(nn.Identity(), "first"))]
    made.append(shared("test", path, (), lambda: Network(nn.Identity(), "second")))
    path.write_bytes(b"three")
    made.append(shared("test", path, (), lambda: Network(nn.Identity(), "third")))
    stamp = file_stamp(path)
    os.utime(path, ns=(stamp[2] + 10**9, stamp[2] + 10**9))
    made.append(shared("test", path, (), lambda: Network(nn.Identity(), "fourth")))
    assert [network.name for network in made] == ["first", "first", "third", "fourth"]
    other = shared("test", path, ("option",), lambda: Network(nn.Identity(), "fifth"))
    assert other.name == "fifth"


def test_references_are_computed_once_per_content():
    network = Network(nn.Flatten(), "flat")
    calls = []

    def encode(picture):
        calls.append(picture)
        assert not torch.is_grad_enabled() and not picture.is_inference()
        return network(picture)

    with torch.inference_mode():
        picture = torch.rand(1, 3, 4, 4)
        first = network.reference(encode, picture)
        assert network.reference(encode, picture.clone()) is first and len(calls) == 1
        network.reference(encode, picture, key="other")
        network.reference(encode, picture + 1.0)
    assert len(calls) == 3 and not first.is_inference()
    for step in range(40):  # the oldest are forgotten
        network.reference(encode, picture + step)
    network.reference(encode, picture, key="other")
    assert len(calls) == 3 + 38 + 1  # two of the forty were there already


def test_content_is_shape_kind_and_values():
    tensor = torch.arange(6.0)
    same = {content_of(t) for t in (tensor, tensor.clone(), torch.arange(12.0)[::2] / 2.0)}
    assert len(same) == 1
    others = (tensor.view(2, 3), tensor.double(), tensor + 1e-6, tensor[:5])
    assert len(same | {content_of(t) for t in others}) == 5


class Curved(nn.Module):
    """Twice differentiable, with two outputs."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(16, 32), nn.Linear(32, 8)

    def forward(self, x):
        hidden = self.first(x).tanh()
        return self.second(hidden), hidden.square()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_half_precision_neither_loses_nor_breaks_gradients(dtype, scale):
    """A gradient of any size comes back in single precision, with the precision's own noise."""
    exact = Network(Curved(), "exact")
    half = Network(Curved(), "half", dtype)
    half.module.load_state_dict(exact.module.state_dict())
    x = torch.randn(4, 16)

    def gradient(network):
        point = x.clone().requires_grad_(True)
        first, second = network(point)
        assert first.dtype == second.dtype == torch.float32
        energy = scale * (first.square().sum() + second.sum())
        return torch.autograd.grad(energy, point)[0]

    expected, result = gradient(exact), gradient(half)
    assert result.dtype == torch.float32
    error = (result - expected).norm() / expected.norm()
    assert error < (5e-3 if dtype == torch.float16 else 4e-2)


def test_double_precision_inputs_get_double_results(landmarks):
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    (points,) = landmarks(image)
    points.sum().backward()
    assert points.dtype == image.grad.dtype == torch.float64 and image.grad.any()


def test_a_network_is_frozen_and_made_of_ordinary_weights(face_networks):
    with torch.inference_mode():
        network = ImageNetwork(
            face_networks / "fr_eye.onnx", Preprocessing((24, 24), channels="gray")
        )
    for tensor in (*network.module.parameters(), *network.module.buffers()):
        assert not tensor.requires_grad and not tensor.is_inference()


def test_second_derivatives_inside_the_hosts_sampling_mode():
    """The engine asks for them so; the weights were made in inference mode, as a prompt does."""
    with torch.inference_mode():
        network = Network(Curved(), "curved")
        x = torch.randn(2, 16)
    with torch.inference_mode(), differentiable(None, [network.module], second_order=True):
        point = x.clone().requires_grad_(True)
        energy = network(point)[0].square().sum()
        (slope,) = torch.autograd.grad(energy, point, create_graph=True)
        (product,) = torch.autograd.grad(slope, point, torch.ones_like(point))
    ordinary = Curved()
    ordinary.load_state_dict(network.module.state_dict())
    _, expected = torch.autograd.functional.hvp(
        lambda z: ordinary(z)[0].square().sum(), x.clone(), torch.ones(2, 16)
    )
    torch.testing.assert_close(product, expected, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- during sampling


def test_the_host_loads_networks_with_the_model_and_nothing_inside_a_step(landmarks, monkeypatch):
    target = torch.full((1, 136), 0.5)
    energy = NetworkOutput(landmarks.network, landmarks.preprocessing, target)
    condition = Condition("points", energy)
    with torch.inference_mode():
        model, vae = load_unet(), load_autoencoder()
    cond, latent = said(), empty_latent()
    loads, evaluations = [], []
    load = comfy.model_management.load_models_gpu

    def watched(models, *args, **kwargs):
        loads.append((len(evaluations), [patcher.model for patcher in models]))
        return load(models, *args, **kwargs)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", watched)
    monkeypatch.setattr(comfy.sampler_helpers.comfy.model_management, "load_models_gpu", watched)
    handle = landmarks.module.register_forward_hook(lambda *_: evaluations.append(1))
    guided = attach(model, (condition,), HostSettings(preset("balanced")), vae)
    comfy.model_management.unload_all_models()
    with torch.inference_mode(), one_thread():
        host_nodes.common_ksampler(guided, 3, 3, 1.0, "euler", "karras", cond, cond, latent)
    handle.remove()
    assert len(evaluations) > 3
    assert [before for before, _ in loads] == [0]  # once, before the network was first asked
    assert any(module is landmarks.module for module in loads[0][1])
    assert all(
        p.device == landmarks.network.patcher.load_device for p in landmarks.module.parameters()
    )
