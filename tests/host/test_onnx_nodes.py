"""The nodes for any ONNX network inside the real host, with real networks."""

import shutil
import subprocess
import sys
from pathlib import Path

import comfy.model_management
import folder_paths
import nodes as host_nodes
import onnx
import pytest
import skimage.data
import torch
from onnx import parser

from zmagic.guidance.energies import RunEnergy
from zmagic.guidance.faces.crops import Faces
from zmagic.guidance.faces.location import FaceLocator
from zmagic.guidance.settings import preset
from zmagic.host.demo_model import load_autoencoder, load_unet
from zmagic.host.hooks import HostSettings, attach
from zmagic.nodes.onnx_nodes import ZMagicLoadOnnx, ZMagicOnnxEnergy

from .demo_sampling import empty_latent, said
from .derivatives import one_thread, slope_of

NETWORKS = (
    "fr_age.onnx",
    "fr_expression.onnx",
    "fr_eye.onnx",
    "fr_feature.onnx",
    "fr_liveness.onnx",
    "fr_pose.onnx",
)
LOAD = {
    "normalization": "0 to 1",
    "size": 0,
    "color_order": "RGB",
    "mean": "127.5",
    "std": "127.5",
    "fit": "stretch",
}
ENERGY = {
    "output": "",
    "target_is": "value",
    "value": "",
    "class_index": 0,
    "distance": "squared error",
    "face_margin": 1.2,
    "weight": 1.0,
    "start": 0.0,
    "end": 1.0,
}

# One output that is a whole number, one that is not: a mask beside the scores that made it.
CHOICE = """<ir_version: 8, opset_import: ["" : 13]> net
(float[N,3,H,W] x) => (int64[N,1,H,W] mask, float[N,3,H,W] scores, float[3,h,w] flat) {
    scores = Tanh(x)
    mask = ArgMax <axis = 1> (scores)
    flat = ReduceMean <axes = [0], keepdims = 0> (x)
}"""


@pytest.fixture(scope="module")
def models(tmp_path_factory, face_networks):
    folder = tmp_path_factory.mktemp("models")
    (folder / "onnx").mkdir()
    for name in NETWORKS:
        shutil.copy(face_networks / name, folder / "onnx")
    onnx.save(parser.parse_model(CHOICE), folder / "onnx" / "choice.onnx")
    with pytest.MonkeyPatch.context() as patch, one_thread():
        patch.setattr(folder_paths, "models_dir", str(folder))
        yield folder


def load(name: str, **inputs):
    with torch.inference_mode():
        return ZMagicLoadOnnx.execute(name, **{**LOAD, **inputs}).args[0]


def energy_of(network, **inputs):
    """The condition that the node puts out in a prompt, which the host runs in inference mode."""
    with torch.inference_mode():
        (conditions,) = ZMagicOnnxEnergy.execute(network, **{**ENERGY, **inputs}).args
    return conditions[-1]


@pytest.fixture(scope="module")
def expressions(models):
    """A classifier of seven expressions, kept, so that it is converted once."""
    return load("fr_expression.onnx")


@pytest.fixture
def photograph() -> torch.Tensor:
    return torch.from_numpy(skimage.data.astronaut()[:256, 100:356].copy())[None].float() / 255.0


# ---------------------------------------------------------------- the loader


def test_lists_what_is_there(models):
    schema = ZMagicLoadOnnx.define_schema()
    assert schema.inputs[0].options == ["choice.onnx", *NETWORKS]
    assert ZMagicLoadOnnx.validate_inputs("gone.onnx") is True


def test_a_list_without_files_has_an_entry(models, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    assert ZMagicLoadOnnx.define_schema().inputs[0].options == ["network.onnx (not installed)"]


def test_pictures_are_prepared_as_asked(models, expressions):
    network = load("fr_expression.onnx", normalization="imagenet", color_order="BGR", fit="crop")
    preprocessing = network.preprocessing
    assert preprocessing.size == (224, 224) and preprocessing.fit == "crop"
    assert preprocessing.channels == "bgr"
    torch.testing.assert_close(
        torch.tensor(preprocessing.mean), torch.tensor([0.485, 0.456, 0.406])
    )
    torch.testing.assert_close(torch.tensor(preprocessing.std), torch.tensor([0.229, 0.224, 0.225]))
    assert load("fr_eye.onnx").preprocessing.channels == "gray"
    face = load("fr_feature.onnx", normalization="custom", mean="127", std="128 128 128")
    assert face.preprocessing.mean == (127 / 255,) and face.preprocessing.std == (128 / 255,) * 3


def test_a_network_of_any_size_gets_the_one_that_is_asked_for(models):
    assert load("choice.onnx").preprocessing.size == (224, 224)
    assert load("choice.onnx", size=32).preprocessing.size == (32, 32)


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        (
            "gone.onnx",
            {},
            r"network 'gone.onnx' not found\. Put it in .*onnx\nGet it: any ONNX file",
        ),
        ("fr_age.onnx", {"size": 100}, "takes images of 64 x 64 pixels only, got size 100"),
        ("fr_eye.onnx", {"normalization": "imagenet"}, "fr_eye.onnx sees gray pictures"),
    ],
)
def test_errors_name_the_loader(models, name, inputs, message):
    with pytest.raises(ValueError, match=f"^Load ONNX Network: .*{message}"):
        load(name, **inputs)


# ---------------------------------------------------------------- the energy


def test_a_value_of_one_output_among_many(models):
    """A regressor of ages gives its offset by the fourth of nine outputs."""
    network = load("fr_age.onnx")
    image = torch.rand(2, 3, 80, 60)
    found = network(image)[3]  # [2, 1]
    for output in ("stage1_delta_k", "3"):
        condition = energy_of(network, output=output, value="0.5")
        expected = (found - 0.5).square().mean(1)
        torch.testing.assert_close(condition.energy(image), expected)
    assert condition.name == "ONNX" and len(condition.networks) == 1


def test_names_of_outputs_win_over_their_numbers(models):
    network = load("fr_pose.onnx")
    assert network.module.outputs == ("output", "617", "618")
    image = torch.rand(1, 3, 64, 64)
    for output, place in (("617", 1), ("2", 2)):
        energy = energy_of(network, output=output, value="0").energy
        torch.testing.assert_close(energy(image), network(image)[place].square().mean(1))


def test_a_tensor_inside_the_network(models, photograph):
    network = load("fr_eye.onnx")
    inner = onnx.load(network.path).graph.node[0].output[0]
    condition = energy_of(network, output=inner, target_is="image", target_image=photograph)
    assert condition.energy(photograph.movedim(-1, 1)).item() < 1e-9
    assert condition.energy.target.ndim == 4


def test_a_class(expressions, photograph):
    network = expressions
    image = photograph.movedim(-1, 1)
    scores = network(image)[0]
    condition = energy_of(network, target_is="class", class_index=4, distance="cross entropy")
    torch.testing.assert_close(condition.energy(image), -scores.log_softmax(1)[:, 4])


@pytest.mark.parametrize("distance", ["squared error", "cosine", "cross entropy"])
def test_what_it_says_of_a_picture(expressions, photograph, distance):
    condition = energy_of(
        expressions, target_is="image", target_image=photograph, distance=distance
    )
    image = photograph.movedim(-1, 1)
    assert condition.energy(image).abs().item() < 1e-5
    assert condition.energy(torch.rand_like(image)).item() > 1e-3


def test_a_network_is_tried_on_weights_that_the_host_has_moved(models, monkeypatch):
    """A prompt runs in inference mode, and so does the copy of the weights to an accelerator."""

    def moved(patchers):
        for patcher in patchers:
            loaded.append(patcher.model)
            for module in patcher.model.modules():
                for weights in (module._parameters, module._buffers):
                    weights.update({k: w.clone() for k, w in weights.items() if w is not None})

    loaded: list[torch.nn.Module] = []
    monkeypatch.setattr(comfy.model_management, "load_models_gpu", moved)
    assert energy_of(load("fr_age.onnx"), value="0.5").name == "ONNX"
    assert loaded and any(w.is_inference() for w in loaded[0].state_dict().values())


def test_energy_has_gradients_outside_the_prompt(models, photograph):
    network = load("fr_feature.onnx", normalization="-1 to 1")
    with torch.inference_mode():
        inputs = {"region": torch.ones(1, 64, 64), "target_image": photograph.clone()}
        condition = energy_of(network, target_is="image", distance="cosine", **inputs)
    slope = slope_of(condition, torch.rand(2, 3, 64, 64), condition.region[:, None])[1]
    assert slope.isfinite().all() and slope.abs().max() > 0.0


def test_a_face_is_judged_where_it_is(expressions, photograph):
    network = expressions
    faces = Faces.from_boxes(torch.tensor([[0.3, 0.15, 0.75, 0.75]]))
    locator = FaceLocator(fixed=faces)
    inputs = {"target_is": "class", "class_index": 3, "distance": "cross entropy"}
    whole = energy_of(network, **inputs)
    face = energy_of(network, face_location=locator, **inputs)
    image = photograph.movedim(-1, 1)
    assert isinstance(face.energy, RunEnergy) and not isinstance(whole.energy, RunEnergy)
    assert not torch.allclose(face.energy(image), whole.energy(image), rtol=1e-2)
    outside = image.clone()
    outside[..., :20] = 0.0
    torch.testing.assert_close(face.energy(outside), face.energy(image))


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("fr_age.onnx", {}, "'value' must be a number or several separated by commas, got ''"),
        ("fr_age.onnx", {"value": "old"}, "got 'old'"),
        (
            "fr_age.onnx",
            {"value": "1, 2"},
            "'value': expected 1 or 3 numbers for an output of 3, got 2",
        ),
        (
            "fr_age.onnx",
            {"value": "1", "output": "9"},
            "has no tensor named 9; its outputs are prob_stage_1",
        ),
        ("fr_age.onnx", {"value": "1", "output": "age"}, "has no tensor named age; its outputs"),
        (
            "fr_age.onnx",
            {"target_is": "class", "distance": "cross entropy", "class_index": 3},
            "'class_index': expected a class 0 to 2 for this output, got 3",
        ),
        (
            "fr_age.onnx",
            {"target_is": "class", "distance": "cross entropy", "output": "3"},
            "the output is a single number, which has no classes; choose 'value'",
        ),
        (
            "fr_age.onnx",
            {"target_is": "class", "distance": "cosine"},
            "'distance' is cosine, expected cross entropy for a target that is 'class'",
        ),
        (
            "fr_age.onnx",
            {"value": "1", "distance": "cross entropy"},
            "'distance' is cross entropy, expected squared error or cosine",
        ),
        ("fr_age.onnx", {"value": "1", "distance": "cosine"}, "as many numbers as the output has"),
        ("fr_age.onnx", {"target_is": "image"}, "'target_image' is not connected"),
        (
            "fr_age.onnx",
            {"value": "1", "target_image": torch.rand(1, 8, 8, 3)},
            "'target_is' is value and 'target_image' is connected",
        ),
        (
            "fr_age.onnx",
            {"target_is": "image", "target_image": torch.rand(1, 8, 8, 2)},
            "'target_image' must be",
        ),
        ("choice.onnx", {"value": "1"}, "output 'mask' of choice.onnx is not a differentiable"),
        ("choice.onnx", {"value": "1", "output": "flat"}, r"the shape \[3, 224, 224\] for one"),
    ],
)
def test_errors_name_the_energy(models, name, inputs, message):
    network = load(name)
    with pytest.raises(ValueError, match=f"^ONNX Energy: (?!ONNX Energy).*{message}"):
        energy_of(network, **inputs)


def test_a_picture_without_a_face(models):
    locator = FaceLocator(detect=lambda picture: [])
    inputs = {"target_is": "image", "target_image": torch.rand(1, 8, 8, 3)}
    with pytest.raises(ValueError, match="^ONNX Energy: no face was found in the picture at"):
        energy_of(load("fr_age.onnx"), face_location=locator, **inputs)


# ---------------------------------------------------------------- guided sampling


def test_sampling_is_guided_to_a_class(models):
    """A network that tells photographs from masks and screens guides the demo model's portraits."""
    with torch.inference_mode():
        model, vae = load_unet(), load_autoencoder()
    inputs = {"target_is": "class", "class_index": 2, "distance": "cross entropy"}
    network = load("fr_liveness.onnx", normalization="custom", mean="0", std="1")
    condition = energy_of(network, **inputs)

    def run(strength: float) -> float:
        traces = []
        settings = HostSettings(preset("fast", guide_every=1, strength=strength))
        guided = attach(model, (condition,), settings, vae, traces.append)
        with torch.inference_mode(), one_thread():
            cond, latent = said(), empty_latent()
            (result,) = host_nodes.common_ksampler(
                guided, 3, 4, 1.0, "euler", "karras", cond, cond, latent
            )
        assert result["samples"].isfinite().all() and not traces[0].warnings
        return traces[0].final["ONNX"][0]

    assert run(0.3) < 0.8 * run(0.0)


# ---------------------------------------------------------------- without the packages

WITHOUT = """
import asyncio, sys
sys.path.insert(0, "scripts")
for name in ("onnx", "onnx2torch", "onnxruntime", "insightface", "open_clip"):
    sys.modules[name] = None
import headless
headless.load_pack()
headless.load_host()
import folder_paths, zmagic
folder_paths.models_dir = sys.argv[1]
nodes = asyncio.run(asyncio.run(zmagic.comfy_entrypoint()).get_node_list())
found = {node.__name__: node for node in nodes}
for node in nodes:
    node.INPUT_TYPES()
options = dict(normalization="0 to 1", size=0, color_order="RGB", mean="0", std="1")
for name, others in (("ZMagicLoadOnnx", {"fit": "crop"}), ("ZMagicLoadSegmenter", {"output": ""})):
    try:
        found[name].execute("fr_age.onnx", **options, **others)
    except ValueError as error:
        print(error)
"""


@pytest.mark.slow
def test_the_pack_works_without_the_packages_and_says_what_to_install(models):
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", WITHOUT, str(models)]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-2000:]
    for title, package in (("Load ONNX Network", "onnx2torch"), ("Load Segmenter", "onnx2torch")):
        assert any(line.startswith(title) for line in result.stdout.splitlines())
        assert f'run "{sys.executable}" -m pip install {package}, and restart' in result.stdout
