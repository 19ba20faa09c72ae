"""The OpenCLIP nodes inside the real host, on random weights: published and small architectures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import comfy.model_management
import folder_paths
import huggingface_hub.constants
import nodes
import onnx
import open_clip
import pytest
import torch
from open_clip import pretrained
from PIL import Image
from safetensors.torch import load_file, save_file
from skimage import data
from torch import nn
from torch.nn.functional import cosine_similarity

from zmagic.guidance.pictures.preprocessing import Preprocessing
from zmagic.guidance.settings import preset
from zmagic.host.hooks import HostSettings, attach
from zmagic.host.image_networks import ImageNetwork
from zmagic.host.openclip import _Texts
from zmagic.host.openclip_training import training_of
from zmagic.host.openclip_weights import published_tag
from zmagic.nodes.demo_nodes import ZMagicLoadDemo
from zmagic.nodes.image_similarity_node import ZMagicImageSimilarity
from zmagic.nodes.openclip_energy_nodes import ZMagicStyle, ZMagicText
from zmagic.nodes.openclip_loader_node import ZMagicLoadOpenCLIP

from .demo_sampling import empty_latent, said
from .derivatives import one_thread, repeated, slope_of
from .published_openclip import added_architectures, write_openclip

PUBLISHED = "ViT-B-32"
# A small architecture of open_clip's own classes, for all that does not depend on the size.
SMALL = "zmagic-small"
SMALL_CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {
        "image_size": 64,
        "patch_size": 16,
        "width": 64,
        "head_width": 16,
        "layers": 4,
    },
    "text_cfg": {"context_length": 77, "width": 32, "heads": 4, "layers": 2},
}

# The pack's own architecture, and one of a configuration that lies beside weights.
DEMO, CONFIGURED = "zmagic_demo_clip", "zmagic-configured"

LOADER = {"architecture": SMALL, "download": False, "precision": "auto"}
COMMON = {"weight": 1.0, "start": 0.0, "end": 1.0}
TEXT = {"prompt": "a cat", "negative_prompt": "", "crops": 1, "smallest_crop": 0.6, **COMMON}
STYLE = {"blocks": "3", "style_weights": "", **COMMON}
SIMILARITY = {"reference_weights": "", **COMMON}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for weights that the host knows, with one small file in it."""
    path = tmp_path_factory.mktemp("open_clip")
    config = tmp_path_factory.mktemp("configs") / f"{SMALL}.json"
    config.write_text(json.dumps(SMALL_CONFIG))
    with added_architectures(), pytest.MonkeyPatch.context() as patch:
        open_clip.add_model_config(config)
        patch.setitem(folder_paths.folder_names_and_paths, "open_clip", ([str(path)], set()))
        write_openclip(path, SMALL)
        yield path


@pytest.fixture(scope="module")
def weights(folder) -> str:
    return f"{SMALL}_random.safetensors"


@pytest.fixture(scope="module")
def openclip(weights):
    return load(weights=weights)


@pytest.fixture(scope="module")
def published(folder) -> str:
    """Weights of the exact published architecture."""
    return write_openclip(folder, PUBLISHED).name


def load(**inputs):
    with torch.inference_mode(), one_thread():
        return ZMagicLoadOpenCLIP.execute(**{**LOADER, **inputs}).args[0]


def condition(node, **inputs):
    """The condition that a node puts out in a prompt, which the host runs in inference mode."""
    with torch.inference_mode(), one_thread():
        (chain,) = node.execute(**inputs).args
    return chain[-1]


def picture(batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 60, 40, 3)


@pytest.fixture(scope="module")
def astronaut() -> torch.Tensor:
    """The photograph as an IMAGE."""
    return torch.from_numpy(data.astronaut())[None].float() / 255.0


# ---------------------------------------------------------------- the loader


@pytest.mark.slow
def test_towers_are_those_of_open_clip(folder, published, astronaut):
    """Embeddings against open_clip's own model, loader, transform and tokenizer on the file."""
    model, _, transform = open_clip.create_model_and_transforms(
        PUBLISHED, pretrained=str(folder / published)
    )
    openclip = load(architecture=PUBLISHED, weights=published)
    prompts = ["a cat", "an astronaut: smiling"]
    with torch.inference_mode(), one_thread():
        model.eval()
        pixels = transform(as_pil(astronaut))[None]
        expected = model.encode_image(pixels)
        assert repeated(openclip.image(pixels), expected)  # the tower itself is the same
        ours = openclip.embeddings(astronaut.movedim(-1, 1))
        texts = model.encode_text(open_clip.get_tokenizer(PUBLISHED)(prompts))
    torch.testing.assert_close(openclip.texts(prompts), texts, rtol=1e-5, atol=1e-4)
    # What the 8 bits of their transform change: measured 1.3e-6.
    assert 1.0 - cosine_similarity(ours, expected).item() < 1e-4


def as_pil(image: torch.Tensor) -> Image.Image:
    return Image.fromarray((image[0] * 255.0).round().byte().numpy())


def test_two_loads_share_one_model(openclip, weights):
    assert load(weights=weights) is openclip
    assert load(weights=weights, precision="fp16") is not openclip


def test_only_the_image_tower_is_loaded_for_sampling(openclip):
    networks = condition(ZMagicText, openclip=openclip, **TEXT).networks
    assert networks == (openclip.image,)
    names = [name for name, _ in openclip.image.patcher.model.named_parameters()]
    assert names and not any("token_embedding" in name for name in names)
    assert not any(p.requires_grad for p in openclip.image.module.parameters())


def test_precision_follows_the_device(openclip, weights):
    assert openclip.image.dtype == torch.float32  # auto on the CPU
    exact = openclip.texts(["a cat"])
    for name, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
        loaded = load(weights=weights, precision=name)
        assert loaded.image.dtype == dtype
        assert cosine_similarity(loaded.texts(["a cat"]), exact).item() > 0.999


def test_fingerprint_is_the_files(weights, folder):
    inputs = {**LOADER, "weights": weights}
    first = ZMagicLoadOpenCLIP.fingerprint_inputs(**inputs, clip=None)
    assert ZMagicLoadOpenCLIP.fingerprint_inputs(**inputs) == first
    path = folder / weights
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 10**9))
    assert ZMagicLoadOpenCLIP.fingerprint_inputs(**inputs) != first
    missing = ZMagicLoadOpenCLIP.fingerprint_inputs(**{**inputs, "weights": "gone.pt"})
    assert missing == ZMagicLoadOpenCLIP.fingerprint_inputs(**{**inputs, "weights": "gone.pt"})


def test_the_lists_have_what_is_there_and_what_is_usual(weights):
    inputs = ZMagicLoadOpenCLIP.INPUT_TYPES()["required"]
    ours = {SMALL, DEMO, CONFIGURED}
    options = set(inputs["architecture"][1]["options"])
    assert set(open_clip.list_models()) - ours == options - ours and DEMO in options
    names = inputs["weights"][1]["options"]
    assert weights in names and any(name.startswith("ViT-B-32_laion2b") for name in names)
    assert ZMagicLoadOpenCLIP.validate_inputs("no such", "no such") is True


def test_a_configuration_beside_weights_makes_an_architecture(folder, weights, openclip):
    (folder / f"{CONFIGURED}.json").write_text(json.dumps(SMALL_CONFIG))
    others = {"list.json": "[1]", "figures.json": '{"embed_dim": 3}', "broken.json": "{"}
    for name, text in others.items():
        (folder / name).write_text(text)
    try:
        options = ZMagicLoadOpenCLIP.INPUT_TYPES()["required"]["architecture"][1]["options"]
        assert CONFIGURED in options and not {"list", "figures", "broken"} & set(options)
        loaded = load(architecture=CONFIGURED, weights=weights)
        assert torch.equal(loaded.texts(["a cat"]), openclip.texts(["a cat"]))
    finally:
        for name in (f"{CONFIGURED}.json", *others):
            (folder / name).unlink()


def test_openclip_checkpoints_of_torch_are_read(folder, weights):
    small = {"state_dict": load_file(folder / weights)}
    torch.save(small, folder / "small.pt")
    try:
        assert load(weights="small.pt").preprocessing.size == (64, 64)
    finally:
        (folder / "small.pt").unlink()


class Harmful:
    """Would run code if it were unpickled."""

    def __reduce__(self):
        return (print, ("this must not be printed",))


def test_nothing_is_unpickled(folder, capsys):
    torch.save({"state_dict": Harmful()}, folder / "harmful.pt")
    with pytest.raises(ValueError, match="^Load OpenCLIP: 'harmful.pt' cannot be read as weights"):
        load(weights="harmful.pt")
    assert "must not" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1",
            "a Git LFS pointer: download",
        ),
        (b"<!DOCTYPE html>", "a web page: download the file itself"),
        (b"", "an empty one: download it again"),
        (Harmful(), "Python objects beside them.*\nGet the weights alone, as safetensors"),
    ],
)
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_what_a_file_of_weights_is_instead(folder, content, message, suffix):
    path = folder / f"mishap.{suffix}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif suffix == "pt":
        torch.save({"state_dict": content}, path)
    else:
        pytest.skip("safetensors hold no objects")
    try:
        with pytest.raises(ValueError, match=f"cannot be read as weights.*: it .*{message}") as no:
            load(weights=path.name)
        assert "\x1b" not in str(no.value)
    finally:
        path.unlink()


def test_a_missing_file_is_described(folder):
    with pytest.raises(ValueError) as error:
        load(architecture=PUBLISHED, weights="ViT-B-32_laion2b_s34b_b79k.safetensors")
    message = str(error.value)
    assert message.startswith("Load OpenCLIP: OpenCLIP weights 'ViT-B-32_laion2b_s34b_b79k")
    for part in (str(folder), "clip_vision", "https://", "605 MB", "MIT", "_random.safetensors"):
        assert part in message


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"architecture": "ViT-X"}, "open_clip has no architecture 'ViT-X', expected one of"),
        (
            {"weights": "ViT-B-32_random.safetensors"},
            "'ViT-B-32_random.safetensors' cannot be read as weights of zmagic-small: choose",
        ),
        (
            {"architecture": "roberta-ViT-B-32"},
            "the text tower of roberta-ViT-B-32 needs a configuration from the Internet; switch",
        ),
        ({"clip": object()}, "'clip' is connected without 'clip_vision', expected both or"),
    ],
)
def test_loader_explains(weights, published, inputs, message):
    with pytest.raises(ValueError, match=f"^Load OpenCLIP: {message}"):
        load(**{"weights": weights, **inputs})


@pytest.mark.parametrize(
    ("architecture", "name", "key", "message"),
    [
        (
            SMALL,
            "vision.safetensors",
            "vision_model.post_layernorm.bias",
            "'vision.safetensors' is an image tower in the format of ComfyUI's CLIP vision models, "
            "which open_clip cannot read; load it with 'Load CLIP Vision' and connect it at",
        ),
        (
            PUBLISHED,
            "ViT-B-32_openai.safetensors",
            "visual.proj",
            "the weights 'ViT-B-32_openai.safetensors' were trained with another activation than "
            "ViT-B-32; choose the architecture ViT-B-32-quickgelu",
        ),
    ],
)
def test_loader_explains_files(folder, architecture, name, key, message):
    save_file({key: torch.zeros(2)}, folder / name)
    with pytest.raises(ValueError, match=f"^Load OpenCLIP: {message}"):
        load(architecture=architecture, weights=name)


def test_a_file_that_is_none_is_explained(folder):
    (folder / "text.safetensors").write_text("not a tensor")
    with pytest.raises(ValueError, match="^Load OpenCLIP: 'text.safetensors' cannot be read"):
        load(weights="text.safetensors")


def test_tags_and_preprocessing_follow_the_files_name():
    assert published_tag("ViT-B-32", "CLIP-ViT-B-32-laion2B-s34B-b79K.bin") == "laion2b_s34b_b79k"
    assert published_tag("ViT-B-32", "mine.safetensors") is None

    def preprocessing(architecture, file, size):
        return training_of(architecture, Path(file)).preprocessing(size)

    plain = preprocessing("ViT-L-14", "mine.safetensors", 224)
    assert plain.mean == open_clip.OPENAI_DATASET_MEAN and plain.fit == "crop"
    other = preprocessing("ViT-L-14", "ViT-L-14_laion2b_s32b_b82k.safetensors", 224)
    assert other.mean == (0.5, 0.5, 0.5)
    siglip = preprocessing("ViT-B-16-SigLIP", "any.safetensors", (224, 224))
    assert siglip.fit == "stretch" and siglip.mean == (0.5, 0.5, 0.5)
    assert siglip.interpolation == "bicubic" and siglip.size == (224, 224)


# ---------------------------------------------------------------- downloads


def test_download_without_a_connection_is_one_sentence(folder, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    name = "ViT-B-32_laion2b_s34b_b79k.safetensors"
    with pytest.raises(ValueError) as error:
        load(architecture=PUBLISHED, weights=name, download=True)
    message = str(error.value)
    assert message.startswith(
        "Load OpenCLIP: downloading the weights laion2b_s34b_b79k of ViT-B-32"
    )
    assert "\n" not in message and str(folder) in message
    assert not list(folder.glob("tmp*"))


def test_download_needs_a_published_name(folder):
    with pytest.raises(
        ValueError, match="^Load OpenCLIP: 'download' is on, but 'mine.safetensors'"
    ):
        load(weights="mine.safetensors", download=True)


def test_a_download_is_kept_and_not_repeated(folder, weights, tmp_path, monkeypatch):
    """open_clip lets its table of published weights name a file: the rest is a real download."""
    fetched = tmp_path / "fetched.safetensors"
    os.link(folder / weights, fetched)
    monkeypatch.setitem(pretrained._PRETRAINED, SMALL, {"lab_only": {"file": str(fetched)}})
    name = f"{SMALL}_lab_only.safetensors"
    try:
        assert load(weights=name, download=True).preprocessing.size == (64, 64)
        assert not fetched.exists() and (folder / name).is_file()
        load(weights=name, download=True)
        load(weights=name)
        load(weights="lab_only", download=True)  # the tag alone finds it, too
    finally:
        (folder / name).unlink(missing_ok=True)


def test_a_file_that_is_there_is_never_downloaded(openclip, weights, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert load(weights=weights, download=True).name == openclip.name


# ---------------------------------------------------------------- the energies


def energies(openclip) -> dict:
    return {
        "Text": condition(ZMagicText, openclip=openclip, **TEXT),
        "Style": condition(ZMagicStyle, openclip=openclip, reference=picture(), **STYLE),
        "Image Similarity": condition(
            ZMagicImageSimilarity, openclip=openclip, reference=picture(), **SIMILARITY
        ),
    }


def test_energies_have_gradients_outside_the_prompt(openclip):
    region = torch.zeros(1, 1, 64, 64)
    region[..., 10:40, 20:60] = 1.0
    for name, made in energies(openclip).items():
        assert made.name == name
        with one_thread():
            values, slope = slope_of(made, torch.rand(2, 3, 64, 64), region)
        assert values.shape == (2,)
        assert slope.isfinite().all() and slope.abs().max() > 0.0
        assert not slope[(region == 0.0).expand_as(slope)].any()


def test_prompts_and_weights_reach_the_energy(openclip):
    inputs = {**TEXT, "prompt": "a cat\n3 :: a dog", "negative_prompt": "2 :: rain", "crops": 3}
    energy = condition(ZMagicText, openclip=openclip, **inputs).energy
    expected = openclip.texts(["a cat", "a dog", "rain"])
    signs = torch.tensor([1.0, 1.0, -1.0])[:, None]
    directions = torch.nn.functional.normalize(expected, dim=-1) * signs
    torch.testing.assert_close(energy.targets.directions, directions)
    torch.testing.assert_close(energy.targets.shares, torch.tensor([1.0, 3.0, 2.0]) / 6.0)
    assert energy.views == 3


def test_references_are_encoded_once(openclip, monkeypatch):
    inputs = {"openclip": openclip, "reference": picture(), **SIMILARITY}
    first = condition(ZMagicImageSimilarity, **inputs).energy.targets.directions
    passes = []
    handle = openclip.image.module.register_forward_hook(lambda *_: passes.append(1))
    try:
        again = condition(ZMagicImageSimilarity, **inputs).energy.targets.directions
    finally:
        handle.remove()
    assert torch.equal(first, again) and passes == []


def test_style_of_several_pictures_and_blocks(openclip):
    references = picture(2)
    inputs = {**STYLE, "blocks": "4, 2", "style_weights": "1, 3"}
    energy = condition(ZMagicStyle, openclip=openclip, reference=references, **inputs).energy
    inputs = {**STYLE, "blocks": "2"}
    first, second = (
        condition(ZMagicStyle, openclip=openclip, reference=r[None], **inputs).energy.targets[0]
        for r in references
    )
    assert [target.shape for target in energy.targets] == [(64, 64), (64, 64)]
    torch.testing.assert_close(energy.targets[0], (first + 3.0 * second) / 4.0)


def test_blocks_are_those_of_open_clip(openclip):
    """Tokens after the third block, by a hook on open_clip's own module; class token dropped."""
    tower = openclip.image.module.tower
    kept = []
    handle = tower.transformer.resblocks[2].register_forward_hook(lambda *x: kept.append(x[-1]))
    pixels = torch.randn(1, 3, 64, 64)
    try:
        with torch.no_grad(), one_thread():
            (features,) = openclip.after_blocks((3,))(pixels)
            openclip.image(pixels)
    finally:
        handle.remove()
    tokens = kept[-1][:, 1:].to(features)
    torch.testing.assert_close(features.flatten(2).transpose(1, 2), tokens)


@pytest.fixture(scope="module")
def vgg(tmp_path_factory) -> ImageNetwork:
    """The first two blocks of VGG16 with random weights as an ONNX file."""
    torch.manual_seed(0)
    layers = []
    for inside, outside in ((3, 64), (64, 64), (64, 128), (128, 128)):
        layers += [nn.Conv2d(inside, outside, 3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if inside == outside else []
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10), nn.ReLU()]
    path = tmp_path_factory.mktemp("vgg") / "vgg.onnx"
    torch.onnx.export(
        nn.Sequential(*layers, *head).eval(),
        torch.rand(1, 3, 224, 224),
        path,
        input_names=["image"],
        dynamic_axes={"image": {0: "batch", 2: "height", 3: "width"}},
        dynamo=False,
    )
    return ImageNetwork(path, Preprocessing((64, 64), (0.5,), (0.25,)))


def test_style_of_a_vgg(vgg):
    names = vgg.activations()
    assert len(names) == 5
    made = onnx.load(vgg.path).graph.node
    assert [node.op_type for node in made if node.output[0] in names] == ["Relu"] * 5
    style = condition(ZMagicStyle, network=vgg, reference=picture(), **{**STYLE, "blocks": "1, 3"})
    assert [target.shape for target in style.energy.targets] == [(64, 64), (128, 128)]
    with one_thread():
        slope = slope_of(style, torch.rand(2, 3, 48, 48))[1]
    assert slope.isfinite().all() and slope.abs().max() > 0.0


@pytest.mark.parametrize(
    ("node", "inputs", "message"),
    [
        (ZMagicText, {"prompt": " \n"}, "Text Energy: expected a line of text in 'prompt' or"),
        (ZMagicText, {"prompt": "0 :: x"}, "Text Energy: 'prompt': a line must be a prompt or"),
        (
            ZMagicText,
            {"negative_prompt": "-2 :: x"},
            "Text Energy: 'negative_prompt': a line must be .* got '-2 :: x'",
        ),
        (
            ZMagicStyle,
            {"openclip": None},
            "Style Energy: expected either 'openclip' or 'network' to be connected, got neither",
        ),
        (
            ZMagicStyle,
            {"blocks": "0"},
            "Style Energy: 'blocks' must be numbers from 1 separated by commas .* got '0'",
        ),
        (ZMagicStyle, {"blocks": "third"}, "Style Energy: 'blocks' must be numbers .* got 'third'"),
        (ZMagicStyle, {"blocks": ""}, "Style Energy: 'blocks' must be numbers .* got ''"),
        (
            ZMagicStyle,
            {"blocks": "3, 5"},
            "Style Energy: expected blocks from 1 to 4, those of zmagic-small .* got 3, 5",
        ),
        (
            ZMagicStyle,
            {"style_weights": "1, 2"},
            "Style Energy: 'style_weights' must be one positive number for each of the 1 reference",
        ),
        (ZMagicStyle, {"style_weights": "-1"}, "Style Energy: 'style_weights' must be .* got '-1'"),
        (ZMagicStyle, {"style_weights": "x"}, "Style Energy: 'style_weights' must be .* got 'x'"),
        (
            ZMagicImageSimilarity,
            {"reference_weights": "0"},
            "Image Similarity Energy: 'reference_weights' must be one positive .* got '0'",
        ),
        (
            ZMagicImageSimilarity,
            {"reference": picture()[..., :2]},
            "Image Similarity Energy: 'reference' must be an RGB image",
        ),
    ],
)
def test_energies_explain(openclip, node, inputs, message):
    defaults = {
        ZMagicText: TEXT,
        ZMagicStyle: {**STYLE, "reference": picture()},
        ZMagicImageSimilarity: {**SIMILARITY, "reference": picture()},
    }[node]
    with pytest.raises(ValueError, match=f"^{message}"):
        condition(node, **{"openclip": openclip, **defaults, **inputs})


def test_style_explains_networks(openclip, vgg):
    inputs = {**STYLE, "reference": picture()}
    with pytest.raises(ValueError, match="^Style Energy: expected either .* got both"):
        condition(ZMagicStyle, openclip=openclip, network=vgg, **inputs)
    with pytest.raises(ValueError, match="^Style Energy: expected blocks from 1 to 5, the activ"):
        condition(ZMagicStyle, network=vgg, **{**inputs, "blocks": "6"})
    with pytest.raises(ValueError, match="^Style Energy: style features must be tokens .* maps"):
        condition(ZMagicStyle, network=vgg, **{**inputs, "blocks": "5"})


def test_tokenizers_from_the_internet_are_explained(openclip):
    """Only the weights of the SigLIP family are local: the tokenizer is not open_clip's own."""
    texts = _Texts(openclip.texts.network, "ViT-B-16-SigLIP", download=False)
    with pytest.raises(
        ValueError, match="^the tokenizer 'timm/ViT-B-16-SigLIP' of ViT-B-16-SigLIP"
    ):
        texts(["a cat"])


# ---------------------------------------------------------------- a run


@pytest.mark.slow
def test_guides_the_demo_model(published):
    """A guided run has a lower energy than a plain one, and the host holds the tower for it."""
    openclip = load(architecture=PUBLISHED, weights=published)
    with torch.inference_mode():
        model, _, vae = ZMagicLoadDemo.execute().args[:3]
    inputs = {**TEXT, "prompt": "a portrait"}
    chain = (condition(ZMagicText, openclip=openclip, **inputs),)
    energies = {}
    for strength in (0.0, 0.3):
        traces = []
        settings = HostSettings(preset("balanced", strength=strength))
        guided = attach(model, chain, settings, vae, on_finish=traces.append)
        with torch.inference_mode(), one_thread():
            cond, latent = said(), empty_latent()
            nodes.common_ksampler(guided, 1, 2, 1.0, "euler", "normal", cond, cond, latent)
        energies[strength] = traces[0].final["Text"]
    assert energies[0.3] < energies[0.0]
    loaded = [entry.model for entry in comfy.model_management.current_loaded_models]
    assert openclip.image.patcher in loaded


@pytest.mark.slow
def test_all_three_guide_together_on_one_tower(openclip):
    """Exact dependence differentiates the towers twice; the tower is held once."""
    with torch.inference_mode():
        model, _, vae = ZMagicLoadDemo.execute().args[:3]
    inputs = {"openclip": openclip, "reference": picture()}
    chain = (
        condition(ZMagicText, openclip=openclip, **{**TEXT, "crops": 3}),
        condition(ZMagicStyle, **inputs, **STYLE),
        condition(ZMagicImageSimilarity, **inputs, **SIMILARITY),
    )
    traces = []
    settings = HostSettings(preset("balanced", dependence="exact", time_travel=1))
    guided = attach(model, chain, settings, vae, on_finish=traces.append)
    with torch.inference_mode(), one_thread():
        cond, latent = said(), empty_latent()
        (result,) = nodes.common_ksampler(guided, 1, 1, 1.0, "euler", "normal", cond, cond, latent)
    assert result["samples"].isfinite().all()
    assert traces[0].warnings == []
    loaded = [entry.model for entry in comfy.model_management.current_loaded_models]
    assert sum(patcher is openclip.image.patcher for patcher in loaded) == 1


# ---------------------------------------------------------------- without the package


def test_an_old_package_is_explained(weights, monkeypatch):
    """Before 2.32 open_clip cannot return features of single blocks."""
    monkeypatch.delattr(open_clip.transformer.VisionTransformer, "forward_intermediates")
    with pytest.raises(ValueError, match="^Load OpenCLIP: .* 'open_clip_torch' is too old"):
        load(weights=weights)


WITHOUT_OPEN_CLIP = """
import asyncio, sys
from importlib.machinery import PathFinder

class Elsewhere(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == "open_clip" else super().find_spec(name, path, target)

sys.meta_path = [Elsewhere if finder is PathFinder else finder for finder in sys.meta_path]
sys.path.insert(0, sys.argv[1])
import headless
zmagic = headless.load_pack()
headless.load_host()
import torch
nodes = asyncio.run(asyncio.run(zmagic.comfy_entrypoint()).get_node_list())
nodes = {node.__name__: node for node in nodes}
for node in nodes.values():
    node.GET_SCHEMA()
nodes["ZMagicSketch"].execute(torch.rand(1, 8, 8, 3), "photograph", 0.1, weight=1.0, start=0, end=1)
try:
    nodes["ZMagicLoadOpenCLIP"].execute("ViT-B-32", "any.safetensors", False, "auto")
except ValueError as error:
    print(error)
"""


@pytest.mark.slow
def test_the_pack_works_without_open_clip():
    scripts = Path(__file__).resolve().parents[2] / "scripts"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_OPEN_CLIP, str(scripts)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert "Load OpenCLIP: the Python package 'open_clip_torch' is needed" in said
    assert (
        f'run "{sys.executable}" -m pip install open_clip_torch, and restart this program' in said
    )
