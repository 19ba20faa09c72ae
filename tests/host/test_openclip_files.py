"""Files for the OpenCLIP loader: what lies beside weights, what is none, and what never ends."""

import importlib
import json
import logging
import os
import zipfile

import folder_paths
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from zmagic.host import openclip_configs
from zmagic.nodes.image_similarity_node import ZMagicImageSimilarity
from zmagic.nodes.openclip_energy_nodes import ZMagicStyle, ZMagicText
from zmagic.nodes.openclip_loader_node import ZMagicLoadOpenCLIP

from .published_openclip import added_architectures, write_openclip

SMALL = "zmagic-small-file"
CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "head_width": 16, "layers": 2},
    "text_cfg": {"context_length": 20, "width": 32, "heads": 2, "layers": 1},
}
OPENAI, HALF = open_clip.OPENAI_DATASET_MEAN, (0.5, 0.5, 0.5)
COMMON = {"weight": 1.0, "start": 0.0, "end": 1.0}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A weights file of a small architecture, which open_clip knows by now."""
    folder = tmp_path_factory.mktemp("configs")
    (folder / f"{SMALL}.json").write_text(json.dumps(CONFIG))
    # The same with the other activation, as open_clip has it of its own models.
    (folder / f"{SMALL}-quickgelu.json").write_text(json.dumps({**CONFIG, "quick_gelu": True}))
    with added_architectures():
        open_clip.add_model_config(folder / f"{SMALL}.json")
        open_clip.add_model_config(folder / f"{SMALL}-quickgelu.json")
        yield write_openclip(folder, SMALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return models/open_clip; what is found there leaves open_clip's list again."""
    factory = importlib.import_module("open_clip.factory")
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", dict(factory._MODEL_CONFIGS))
    monkeypatch.setattr(factory, "_MODEL_CONFIG_PATHS", list(factory._MODEL_CONFIG_PATHS))
    path = tmp_path / "open_clip"
    path.mkdir()
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "open_clip", ([str(path)], set()))
    return path


def load(weights: str, architecture: str = SMALL, **inputs):
    with torch.inference_mode():
        return ZMagicLoadOpenCLIP.execute(
            architecture=architecture, weights=weights, download=False, precision="auto", **inputs
        ).args[0]


def describe(folder, name: str = "open_clip_config.json", **preprocessing):
    config = {"model_cfg": CONFIG, "preprocess_cfg": {"mean": HALF, "std": HALF, **preprocessing}}
    (folder / name).write_text(json.dumps(config))


# ---------------------------------------------------------------- what is known of weights


def test_the_configuration_beside_weights_is_read(folder, small):
    os.symlink(small, folder / "open_clip_model.safetensors")
    assert load("open_clip_model.safetensors").preprocessing.mean == OPENAI
    describe(folder, interpolation="bilinear", resize_mode="squash")
    loaded = load("open_clip_model.safetensors")
    assert loaded.preprocessing.mean == HALF and loaded.preprocessing.std == HALF
    assert (loaded.preprocessing.interpolation, loaded.preprocessing.fit) == ("bilinear", "stretch")
    assert not loaded.assumed


def test_as_in_the_cache_of_the_hub(folder, small, tmp_path):
    """Snapshots are links to blobs; a user links to the snapshot."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    os.link(small, blobs / "0123")
    describe(blobs, "4567")
    os.symlink("../../blobs/0123", snapshot / "open_clip_model.safetensors")
    os.symlink("../../blobs/4567", snapshot / "open_clip_config.json")
    os.symlink(snapshot / "open_clip_model.safetensors", folder / "mine.safetensors")
    assert load("mine.safetensors").preprocessing.mean == HALF


def test_another_file_in_the_folder_is_not_described(folder, small):
    for name in ("open_clip_model.safetensors", "other.safetensors"):
        os.symlink(small, folder / name)
    describe(folder)
    assert load("open_clip_model.safetensors").preprocessing.mean == HALF
    assert load("other.safetensors").preprocessing.mean == OPENAI


def test_the_activation_is_read_or_chosen(folder, small):
    os.symlink(small, folder / "open_clip_model.safetensors")
    noise = torch.rand(1, 3, 32, 32)
    plain, quick = (
        load("open_clip_model.safetensors", activation=each).embeddings(noise)
        for each in ("GELU", "QuickGELU")
    )
    assert not torch.allclose(plain, quick, atol=1e-4)
    config = {"model_cfg": {**CONFIG, "quick_gelu": True}, "preprocess_cfg": {"mean": OPENAI}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    read = load("open_clip_model.safetensors").embeddings(noise)
    assert torch.equal(read, quick)


def test_what_is_assumed_is_said(folder, small, caplog):
    os.symlink(small, folder / "mine.safetensors")
    with caplog.at_level(logging.WARNING):
        loaded = load("mine.safetensors")
    (message,) = caplog.messages
    assert message.startswith("Load OpenCLIP: nothing says how 'mine.safetensors' was trained. Ass")
    assert "mean 0.481, 0.458, 0.408" in message and "the activation GELU" in message
    assert loaded.assumed in message
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        chosen = load("mine.safetensors", normalization="-1 to 1", activation="GELU")
    assert chosen.preprocessing.mean == HALF and caplog.messages == []


def test_a_configuration_of_another_architecture(folder, small):
    os.symlink(small, folder / "open_clip_model.safetensors")
    config = {"model_cfg": open_clip.get_model_config("ViT-L-14"), "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(
        ValueError, match=r"^Load OpenCLIP: choose .*'ViT-L-14'.* at 'architecture'"
    ):
        load("open_clip_model.safetensors")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1, 2]",
        "3",
        "[" * 50_000,
        '{"model_cfg": [], "preprocess_cfg": {}}',
        '{"model_cfg": {}, "preprocess_cfg": 5}',
        '{"model_cfg": {}, "preprocess_cfg": {"mean": 0.5}}',
        '{"model_cfg": {}, "preprocess_cfg": {"mean": ["a", "b", "c"]}}',
        '{"model_cfg": {}, "preprocess_cfg": {"mean": [1e300, 0, 0]}}',
        '{"model_cfg": {}, "preprocess_cfg": {"mean": [NaN, 0, 0]}}',
        '{"model_cfg": {}, "preprocess_cfg": {"std": [0, 0, 0]}}',
        '{"model_cfg": {}, "preprocess_cfg": {"interpolation": "random"}}',
        '{"model_cfg": {}, "preprocess_cfg": {"resize_mode": ["squash"]}}',
        '{"model_cfg": {"embed_dim": "many"}, "preprocess_cfg": {}}',
        '{"model_cfg": {"embed_dim": 32, "vision_cfg": 1, "text_cfg": 2}, "preprocess_cfg": {}}',
        '{"model_cfg": "' + "x" * 100_000 + '"}',
    ],
    ids=lambda text: text[:60],
)
def test_a_configuration_beside_weights_that_is_none(folder, small, text):
    os.symlink(small, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(text)
    with pytest.raises(ValueError, match="^Load OpenCLIP: .*open_clip_config.json"):
        load("open_clip_model.safetensors")


@pytest.mark.parametrize(
    ("number", "change"),
    enumerate(
        [
            {"embed_dim": None},
            {"embed_dim": "32"},
            {"embed_dim": 10**12},
            {"vision_cfg": []},
            {"text_cfg": 3},
            {"vision_cfg": {**CONFIG["vision_cfg"], "layers": 10**9}},
            {"vision_cfg": {**CONFIG["vision_cfg"], "width": 19_999, "layers": 199}},
            {"vision_cfg": {**CONFIG["vision_cfg"], "patch_size": 0}},
            {"vision_cfg": {**CONFIG["vision_cfg"], "width": "wide"}},
            {"vision_cfg": {**CONFIG["vision_cfg"], "image_size": [[1]]}},
            {"vision_cfg": {"timm_model_name": "hf-hub:someone/something"}},
            {"vision_cfg": {"timm_model_name": "no such model"}},
            {"text_cfg": {**CONFIG["text_cfg"], "heads": -1}},
            {"text_cfg": {**CONFIG["text_cfg"], "unknown": 1}},
            {"unknown": {"deep": [1, [2, [3]]]}},
        ]
    ),
    ids=lambda value: str(value)[:50],
)
def test_an_architecture_of_which_no_model_can_be_made(folder, small, number, change):
    name = f"zmagic-broken-{number}"
    (folder / f"{name}.json").write_text(json.dumps({**CONFIG, **change}))
    os.symlink(small, folder / "mine.safetensors")
    with pytest.raises(ValueError, match=f"^Load OpenCLIP: .*'{name}'"):
        load("mine.safetensors", architecture=name)


# ---------------------------------------------------------------- what is no configuration


def test_foreign_files_are_ignored_and_said_once(folder, caplog):
    (folder / "nested.json").write_text("[" * 5_000_000 + "]" * 5_000_000)
    (folder / "deep.json").write_text("[" * 30_000)
    os.mkfifo(folder / "pipe.json")
    (folder / "folder.json").mkdir()
    (folder / "binary.json").write_bytes(bytes(range(256)))
    os.symlink("/dev/zero", folder / "device.json")
    os.symlink("nowhere", folder / "broken.json")
    (folder / "other.json").write_text("{}")
    os.mkfifo(folder / "\udc80.json")
    with caplog.at_level(logging.WARNING):
        first = ZMagicLoadOpenCLIP.define_schema()
        messages = list(caplog.messages)
        ZMagicLoadOpenCLIP.define_schema()
    assert messages == caplog.messages and len(messages) == 8
    for name in ("nested", "deep", "pipe", "folder", "binary", "device", "broken", "udc80"):
        assert sum(f"{name}.json' is ignored" in message for message in messages) == 1, name
    "".join(messages).encode()
    options = first.inputs[0].options
    assert "ViT-B-32" in options
    assert not {"nested", "pipe", "folder", "binary", "device", "broken"} & set(options)


def test_the_folder_may_be_missing_or_a_file(folder):
    folder.rmdir()
    assert "ViT-B-32" in ZMagicLoadOpenCLIP.define_schema().inputs[0].options
    folder.write_text("not a folder")
    assert "ViT-B-32" in ZMagicLoadOpenCLIP.define_schema().inputs[0].options
    assert openclip_configs.model_configurations()[-1].stem == "zmagic_demo_clip"


# ---------------------------------------------------------------- what are no weights


class Marker:
    """Something that a training keeps beside weights."""


def write(path, small, kind: str):
    weights = load_file(small)
    if kind == "training":
        torch.save({"state_dict": weights, "args": Marker()}, path)
    elif kind == "script":
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    elif kind == "pointer":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    elif kind == "page":
        path.write_text("<!DOCTYPE html><html><body>Sign in</body></html>")
    elif kind == "cut":
        path.write_bytes(small.read_bytes()[:-1000])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "nothing")
    elif kind == "list":
        torch.save([1, 2, 3], path)
    elif kind == "larger":
        weights["visual.positional_embedding"] = torch.zeros(10, 32).half()
        save_file(weights, path)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("a.pt", "training", "it holds Python objects beside them"),
        ("a.pt", "script", "it is a TorchScript program"),
        ("a.safetensors", "pointer", "it is a Git LFS pointer"),
        ("a.pt", "pointer", "it is a Git LFS pointer"),
        ("a.bin", "page", "it is a web page"),
        ("a.safetensors", "page", "it is a web page"),
        ("a.safetensors", "cut", "a download that was cut"),
        ("a.safetensors", "empty", "it is an empty one"),
        ("a.pt", "cut", "cannot be read as weights"),
        ("a.pt", "zip", "cannot be read as weights"),
        ("a.pt", "list", "cannot be read as weights"),
        ("a.safetensors", "larger", "Its 'visual.positional_embedding' has the shape"),
    ],
)
def test_files_that_are_no_weights_say_what_they_are(folder, small, name, kind, message):
    write(folder / name, small, kind)
    with pytest.raises(ValueError) as refused:
        load(name)
    text = str(refused.value)
    assert text.startswith(f"Load OpenCLIP: '{name}' cannot be read as weights") and message in text
    assert "\x1b" not in text and len(text) < 700


def test_another_architecture_is_named(folder, small):
    """The half precision of the file is not what is wrong with it."""
    write_openclip(folder, "ViT-B-32").rename(folder / "mine.safetensors")
    for chosen in (SMALL, "ViT-B-16", "ViT-B-32-256"):
        with pytest.raises(ValueError, match=r"choose 'ViT-B-32'.* at 'architecture'") as refused:
            load("mine.safetensors", architecture=chosen)
        assert "Half" not in str(refused.value)


# ---------------------------------------------------------------- prompts


def test_a_prompt_that_is_too_long_is_quoted(folder, small, caplog):
    os.symlink(small, folder / "mine.safetensors")
    openclip = load("mine.safetensors", normalization="OpenAI", activation="GELU")

    def condition(prompt: str, negative: str = ""):
        return ZMagicText.execute(
            openclip=openclip,
            prompt=prompt,
            negative_prompt=negative,
            crops=1,
            smallest_crop=0.6,
            **COMMON,
        ).args[0][-1]

    words = " ".join(["word"] * 18)  # and the two tokens around them
    with caplog.at_level(logging.WARNING):
        assert condition(words).energy.warnings() == []
        assert caplog.messages == []
        long = condition(f"{words} and a red hat", f"{words} blue")
    quoted = ["it does not see 'and a red hat'", "it does not see 'blue'"]
    assert len(caplog.messages) == 2
    for warning, message, part in zip(long.energy.warnings(), caplog.messages, quoted, strict=True):
        assert part in warning and warning in message
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        condition("1" * 40_000)
        condition("a cat \udc80")
    (message,) = caplog.messages
    assert "is longer than the text tower reads" in message and len(message) < 600


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize(
    ("node", "inputs"),
    [
        (ZMagicStyle, {"blocks": "1, 2", "style_weights": ""}),
        (ZMagicImageSimilarity, {"reference_weights": ""}),
    ],
)
def test_half_precision_and_transparency_of_references(folder, small, node, inputs):
    os.symlink(small, folder / "mine.safetensors")
    openclip = load("mine.safetensors", normalization="OpenAI", activation="GELU")
    image, seen = torch.rand(1, 3, 40, 40), torch.rand(1, 40, 40, 3)
    counts = torch.zeros(1, 40, 40)
    counts[:, 8:24, 8:32] = 1.0

    def energy(reference, **optional):
        with torch.inference_mode():
            chain = node.execute(
                reference=reference, openclip=openclip, **inputs, **optional, **COMMON
            ).args[0]
        return chain[-1].energy(image)

    torch.testing.assert_close(energy(seen.half()), energy(seen), rtol=0.05, atol=1e-3)
    values = []
    for hidden in (torch.zeros_like(seen), torch.rand_like(seen)):
        reference = torch.where(counts[..., None] > 0.0, seen, hidden)
        values.append(energy(reference, reference_mask=counts))
        values.append(energy(torch.cat((reference, counts[..., None]), -1)))
    assert all(torch.equal(values[0], value) for value in values[1:])
    assert not torch.allclose(values[0], energy(seen), atol=1e-5)
