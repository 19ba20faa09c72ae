"""The segmentation nodes inside the real host, with the published face parser's architecture."""

import shutil
import warnings

import folder_paths
import nodes as host_nodes
import pytest
import torch

from zmagic.guidance.settings import preset
from zmagic.host.demo_model import load_autoencoder, load_photograph, load_unet
from zmagic.host.hooks import HostSettings, attach
from zmagic.lab.face_parser import CLASSES
from zmagic.nodes.parsing.colors import parse_palette
from zmagic.nodes.segmentation_nodes import ZMagicLoadSegmenter, ZMagicSegmentation

from .demo_sampling import empty_latent, said
from .derivatives import one_thread, slope_of
from .published_segmenter import write_bisenet

SIDE = 64
FILE = "face_parsing_resnet18.onnx"
LOAD = {
    "normalization": "imagenet",
    "size": 0,
    "color_order": "RGB",
    "mean": "127.5",
    "std": "127.5",
    "output": "",
}
ENERGY = {
    "target_is": "photograph",
    "classes": "",
    "colors": "",
    "class_weights": "",
    "distance": "cross entropy",
    "compare": "probabilities",
    "weight": 1.0,
    "start": 0.0,
    "end": 1.0,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory, face_networks):
    """A folder of models with the face parser, and with a classifier of the same kind of file."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "onnx").mkdir()
    with pytest.MonkeyPatch.context() as patch, one_thread():
        write_bisenet(folder / "onnx", SIDE)
        shutil.copy(face_networks / "fr_eye.onnx", folder / "onnx")
        (folder / "outside.onnx").write_bytes(b"a secret")
        (folder / "onnx" / "broken.onnx").write_bytes(b"not a network")
        patch.setattr(folder_paths, "models_dir", str(folder))
        yield folder


def load(name: str = FILE, **inputs):
    with torch.inference_mode():
        return ZMagicLoadSegmenter.execute(name, **{**LOAD, **inputs}).args[0]


@pytest.fixture(scope="module")
def segmenter(models):
    return load()


@pytest.fixture
def photograph() -> torch.Tensor:
    return load_photograph()[:, ::4, ::4].contiguous()


def energy_of(segmenter, **inputs):
    """The condition that the node puts out in a prompt, which the host runs in inference mode."""
    with torch.inference_mode():
        (conditions,) = ZMagicSegmentation.execute(segmenter, **{**ENERGY, **inputs}).args
    return conditions[-1]


# ---------------------------------------------------------------- the loader


def test_loads_the_published_face_parser_as_it_is(segmenter):
    assert segmenter.module.size == (SIDE, SIDE) and segmenter.module.outputs == ("output",)
    (maps,) = segmenter(torch.rand(2, 3, 50, 70))
    assert maps.shape == (2, CLASSES, SIDE, SIDE)


def test_the_usual_file_is_offered_whether_it_is_there_or_not(models):
    schema = ZMagicLoadSegmenter.define_schema()
    combo = schema.inputs[0]
    assert combo.options == [FILE, "broken.onnx", "fr_eye.onnx"] and combo.default == FILE
    assert ZMagicLoadSegmenter.validate_inputs("gone.onnx") is True


def test_fingerprint_is_the_files(models):
    name = "copy.onnx"
    inputs = {"model_name": name, **LOAD}
    assert ZMagicLoadSegmenter.fingerprint_inputs(**inputs) == (name,)
    path = models / "onnx" / name
    path.write_bytes(b"a")
    first = ZMagicLoadSegmenter.fingerprint_inputs(**inputs)
    assert first == ZMagicLoadSegmenter.fingerprint_inputs(**inputs)
    path.write_bytes(b"ab")
    assert ZMagicLoadSegmenter.fingerprint_inputs(**inputs) != first
    path.unlink()


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        (
            "gone.onnx",
            {},
            r"segmenter 'gone.onnx' not found\. Put it in .*onnx\n"
            r"Or get face_parsing_resnet18.onnx: resnet18",
        ),
        ("../outside.onnx", {}, "segmenter '../outside.onnx' not found"),
        ("broken.onnx", {}, "broken.onnx is not a readable ONNX file"),
        (FILE, {"size": 512}, f"takes images of {SIDE} x {SIDE} pixels only, got size 512"),
        (FILE, {"output": "7"}, "has no tensor named 7; its outputs are output, "),
        (FILE, {"output": "scores"}, "has no tensor named scores; its outputs are output, "),
        (FILE, {"normalization": "custom", "mean": "a"}, "'mean' must be one or three .* got 'a'"),
        (FILE, {"normalization": "custom", "std": "1, 2"}, "'std' must be one or three numbers"),
        (FILE, {"normalization": "custom", "std": "0"}, "'std' must be above 0, got '0'"),
        ("fr_eye.onnx", {}, "fr_eye.onnx sees gray pictures"),
        (
            "fr_eye.onnx",
            {"normalization": "0 to 1"},
            r"output 'output' of fr_eye.onnx has the shape \[1, 2\], expected a map",
        ),
    ],
)
def test_errors_name_the_loader(models, name, inputs, message):
    with pytest.raises(ValueError, match=f"^Load Segmenter: .*{message}"):
        load(name, **inputs)


# ---------------------------------------------------------------- the energy


@pytest.mark.parametrize(
    "inputs",
    [{}, {"distance": "squared error"}, {"distance": "squared error", "compare": "logits"}],
)
def test_a_photograph_is_parsed(segmenter, photograph, inputs):
    condition = energy_of(segmenter, target_image=photograph, **inputs)
    assert condition.name == "Segmentation" and condition.networks == (segmenter.network,)
    image = photograph.movedim(-1, 1)
    assert condition.energy(image).abs().item() < 1e-5
    assert condition.energy(torch.rand_like(image)).item() > 1e-3


def test_a_label_map_of_what_the_parser_sees_is_nearly_met(segmenter, photograph):
    """The map comes as colors, as numbers and as masks; all three ask for the same."""
    image = photograph.movedim(-1, 1)
    with torch.no_grad():
        classes = segmenter(image)[0].argmax(1)  # [1, h, w]
    present = classes.unique().tolist()
    painted = parse_palette("", CLASSES)[classes]
    numbers = (classes / 255.0)[..., None].expand(-1, -1, -1, 3)
    masks = {f"mask{i}": (classes == number).float() for i, number in enumerate(present)}
    targets = (
        {"target_image": painted, "target_is": "color map"},
        {"target_image": numbers, "target_is": "index map"},
        {"masks": masks, "classes": ", ".join(map(str, present))},
    )
    values = [energy_of(segmenter, **target).energy(image).item() for target in targets]
    assert max(values) - min(values) < 1e-5
    other = energy_of(segmenter, **targets[0]).energy(torch.rand_like(image)).item()
    assert values[0] < 0.8 * other


@pytest.mark.parametrize(
    "target",
    [
        {"target_image": torch.rand(1, 40, 30, 4)},
        {"masks": {"mask0": torch.ones(20, 20), "mask1": None}, "classes": "17 hair"},
    ],
)
def test_energy_has_gradients_outside_the_prompt(segmenter, target):
    """References, masks and weights of a prompt are inference tensors or were made beside them."""
    with torch.inference_mode():
        target = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in target.items()}
        condition = energy_of(segmenter, region=torch.ones(1, 48, 48), **target)
    slope = slope_of(condition, torch.rand(2, 3, 48, 48), condition.region[:, None])[1]
    assert slope.isfinite().all() and slope.abs().max() > 0.0


def test_references_are_parsed_once(segmenter, photograph):
    parsed = []
    handle = segmenter.module.register_forward_hook(lambda *_: parsed.append(1))
    fresh = photograph * 0.9
    energy_of(segmenter, target_image=fresh)
    energy_of(segmenter, target_image=fresh.clone())
    handle.remove()
    assert len(parsed) == 1


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "expected a picture at 'target_image' or masks at 'masks', got neither"),
        (
            {"target_image": torch.rand(1, 8, 8, 3), "masks": {"mask0": torch.ones(1, 8, 8)}},
            "got both",
        ),
        ({"masks": {"mask0": torch.ones(1, 8, 8)}}, "one class for each of the 1 masks, .* got 0"),
        ({"masks": {"mask0": torch.ones(1, 1, 8, 8)}, "classes": "1"}, "'masks' must be a mask"),
        ({"masks": {"mask0": torch.zeros(1, 8, 8)}, "classes": "1"}, "no pixel of the target asks"),
        ({"masks": {"mask0": torch.ones(1, 8, 8)}, "classes": "19"}, "'classes' names class 19"),
        (
            {"masks": {"mask0": torch.ones(1, 8, 8)}, "classes": "1", "compare": "logits"},
            "'compare' is logits, which only a photograph has",
        ),
        (
            {"target_image": torch.rand(1, 8, 8, 3), "compare": "logits"},
            "logits are compared by 'squared error', got 'cross entropy'",
        ),
        ({"target_image": torch.rand(1, 8, 8, 3), "class_weights": "19:1"}, "classes 0 to 18"),
        ({"target_image": torch.rand(8, 8, 3)}, r"'target_image' must be an RGB image"),
        (
            {"target_image": torch.rand(1, 8, 8, 3), "target_is": "color map", "colors": "red"},
            "'colors' must be hexadecimal colors",
        ),
        (
            {"target_image": torch.full((1, 8, 8, 3), 0.5), "target_is": "color map"},
            "no pixel of the target asks for a class",
        ),
        (
            {"target_image": torch.full((1, 8, 8, 3), 0.5), "target_is": "index map"},
            "index map holds 128, expected the segmenter's classes 0 to 18",
        ),
    ],
)
def test_errors_name_the_energy(segmenter, inputs, message):
    with pytest.raises(ValueError, match=f"^Segmentation Energy: .*{message}"):
        energy_of(segmenter, **inputs)


# ---------------------------------------------------------------- guided sampling


@pytest.mark.slow
def test_sampling_is_guided_to_the_layout(segmenter, photograph):
    with torch.inference_mode():
        model, vae = load_unet(), load_autoencoder()
    masks = {"mask0": torch.zeros(1, 16, 16), "mask1": torch.zeros(1, 16, 16)}
    masks["mask0"][:, :5], masks["mask1"][:, 8:] = 1.0, 1.0
    chains = (
        energy_of(segmenter, target_image=photograph),
        energy_of(segmenter, masks=masks, classes="17 hair, 1 skin"),
    )

    def run(strength: float) -> dict:
        traces = []
        # Photograph and masks disagree: along shorter paths the masks win alone.
        settings = HostSettings(preset("faithful", strength=strength))
        guided = attach(model, chains, settings, vae, traces.append)
        with torch.inference_mode(), one_thread(), warnings.catch_warnings():
            warnings.simplefilter("error")  # converted networks shall not fill the log
            cond, latent = said(), empty_latent(2)
            (result,) = host_nodes.common_ksampler(
                guided, 3, 6, 1.0, "euler", "karras", cond, cond, latent
            )
        assert result["samples"].isfinite().all() and not traces[0].warnings
        return traces[0].final

    plain, guided = run(0.0), run(0.4)
    for name, values in guided.items():
        assert sum(values) < 0.9 * sum(plain[name]), name


def test_what_is_hidden_of_a_target_does_not_count(segmenter):
    """A mask hides parts of the target, and so does transparency."""
    counts = torch.zeros(1, 64, 64)
    counts[:, 16:48, 16:48] = 1.0
    seen = torch.rand(1, 64, 64, 3)
    image = torch.rand(1, 3, 64, 64)
    values = []
    for hidden in (torch.zeros_like(seen), torch.rand_like(seen)):
        target = torch.where(counts[..., None] > 0.0, seen, hidden)
        cut_out = torch.cat((target, counts[..., None]), -1)
        values += [
            energy_of(segmenter, target_image=target, reference_mask=counts).energy(image),
            energy_of(segmenter, target_image=cut_out).energy(image),
        ]
    assert all(torch.equal(values[0], value) for value in values[1:])
    everything = energy_of(segmenter, target_image=seen).energy(image)
    assert not torch.allclose(values[0], everything)
