"""The networks that come with the pack: loaded as users' files are, and good for guidance."""

import os
import shutil
import sys

import pytest
import torch

from zmagic.guidance.settings import preset
from zmagic.host import demo_model, demo_networks
from zmagic.host.demo_model import (
    AVERAGE_FACE,
    LAYOUT_FILE,
    MAN_FILE,
    WOMAN_FILE,
    face_in,
    load_photograph,
)
from zmagic.host.demo_networks import demo_locator
from zmagic.host.hooks import HostSettings, attach
from zmagic.nodes.demo_nodes import ZMagicLoadDemo, ZMagicLoadDemoNetworks
from zmagic.nodes.face_energy_nodes import ZMagicFaceIdentity, ZMagicLandmarks
from zmagic.nodes.openclip_energy_nodes import ZMagicText
from zmagic.nodes.segmentation_nodes import ZMagicSegmentation

from .demo_sampling import empty_latent, said

COMMON = {"weight": 1.0, "start": 0.0, "end": 1.0}
PORTRAITS = (WOMAN_FILE, MAN_FILE, LAYOUT_FILE)
STEPS, STRENGTH = 4, 0.1

# Classes of the parser.
SKIN, HAIR, CLOTHING = 1, 5, 6


@pytest.fixture(scope="module")
def networks():
    """Return openclip, segmenter, recognizer and landmark_network, made as in a prompt."""
    with torch.inference_mode():
        return ZMagicLoadDemoNetworks.execute().args


@pytest.fixture(scope="module")
def demo():
    with torch.inference_mode():
        return ZMagicLoadDemo.execute().args


@pytest.fixture(scope="module")
def locator(networks):
    return demo_locator(networks[3])


def portrait(file) -> torch.Tensor:
    """``[1, 3, 128, 128]``."""
    return load_photograph(file).movedim(-1, 1)


# ---------------------------------------------------------------- what they see


@pytest.mark.parametrize("file", PORTRAITS, ids=lambda file: file.stem)
def test_the_face_is_found_without_a_detector(locator, file):
    """Nearer to where the renderer put it than the average face is."""
    true = face_in(file).points
    (found,) = locator.in_picture(portrait(file))
    between_eyes = (true[0, 1] - true[0, 0]).norm()
    error = (found.points - true).norm(dim=2).mean() / between_eyes
    assert error < 0.1
    assert error < (AVERAGE_FACE.points - true).norm(dim=2).mean() / between_eyes


@pytest.mark.parametrize("file", PORTRAITS, ids=lambda file: file.stem)
def test_the_parser_sees_a_head_above_clothing(networks, file):
    with torch.no_grad():
        classes = networks[1](portrait(file))[0].argmax(1)[0]
    height = torch.arange(128.0)[:, None].expand(128, 128)
    hair, skin, clothing = (height[classes == each] for each in (HAIR, SKIN, CLOTHING))
    assert min(len(hair), len(skin), len(clothing)) > 400
    assert hair.min() < skin.min() and hair.mean() < clothing.mean() > skin.mean()
    nose = (face_in(file).points[0, 2] * 128).long()
    assert classes[nose[1], nose[0]] == SKIN


def test_the_recognizer_tells_them_apart(networks):
    from zmagic.guidance.energies.face_identity import mean_embedding

    pictures = {file: (portrait(file), face_in(file)) for file in PORTRAITS}
    with torch.no_grad():
        people = torch.stack([mean_embedding(networks[2], *each) for each in pictures.values()])
        # The same person in another light.
        darker = torch.stack(
            [mean_embedding(networks[2], 0.7 * x, face) for x, face in pictures.values()]
        )
    cosines = darker @ people.T
    assert (cosines.argmax(1) == torch.arange(len(PORTRAITS))).all()
    assert cosines.diagonal().min() > 0.6 > (people @ people.T).fill_diagonal_(0.0).max()


@pytest.mark.parametrize(
    "captions",
    [
        [f"a photo of a person with {hair} hair" for hair in ("black", "brown", "blond")],
        [f"a photo of a person wearing {color}" for color in ("green", "white", "black")],
    ],
    ids=["hair", "clothing"],
)
def test_clip_prefers_what_the_pictures_show(networks, captions):
    clip = networks[0]
    pictures = torch.cat([portrait(file) for file in PORTRAITS])
    texts = clip.texts(captions)
    cosines = torch.nn.functional.normalize(clip.embeddings(pictures)) @ (
        torch.nn.functional.normalize(texts).T
    )
    assert cosines.argmax(1).tolist() == [0, 1, 2]


# ---------------------------------------------------------------- guidance


def text(networks, demo, locator):
    return ZMagicText.execute(
        openclip=networks[0],
        prompt="a photo of a woman with red hair, wearing blue, green background",
        negative_prompt="",
        crops=1,
        smallest_crop=0.6,
        **COMMON,
    )


def segmentation(networks, demo, locator):
    return ZMagicSegmentation.execute(
        segmenter=networks[1],
        target_image=demo[6],
        target_is="photograph",
        classes="",
        colors="",
        class_weights="",
        distance="cross entropy",
        compare="probabilities",
        **COMMON,
    )


def identity(networks, demo, locator):
    return ZMagicFaceIdentity.execute(
        recognizer=networks[2], reference=demo[4], face_location=locator, **COMMON
    )


def landmarks(networks, demo, locator):
    return ZMagicLandmarks.execute(
        landmark_network=networks[3],
        target_image=demo[6],
        landmarks="",
        points="all",
        face_location=locator,
        **COMMON,
    )


@pytest.mark.slow
@pytest.mark.parametrize("node", [text, segmentation, identity, landmarks])
def test_each_lowers_its_energy_in_the_demo_model(networks, demo, locator, node):
    from nodes import common_ksampler

    model, _, vae = demo[:3]
    with torch.inference_mode():
        (condition,) = node(networks, demo, locator).args[0]

    def final(strength: float) -> float:
        traces = []
        settings = HostSettings(preset("quality", strength=strength))
        guided = attach(model, (condition,), settings, vae, traces.append)
        with torch.inference_mode():
            cond, latent = (said(), said()), empty_latent()
            common_ksampler(guided, 3, STEPS, 1.0, "dpmpp_2m", "karras", *cond, latent)
        ((energy,),) = traces[0].final.values()
        return energy

    assert final(STRENGTH) < final(0.0)


# ---------------------------------------------------------------- loading


def test_all_who_ask_share_them(networks):
    again = ZMagicLoadDemoNetworks.execute().args
    assert again[0] is networks[0]
    for first, second in zip(networks[1:], again[1:], strict=True):
        assert first.network is second.network


def test_the_fingerprint_follows_the_files(monkeypatch, tmp_path):
    copy = shutil.copy(demo_networks.PARSER_FILE, tmp_path)
    monkeypatch.setattr(demo_networks, "PARSER_FILE", type(demo_networks.PARSER_FILE)(copy))
    before = ZMagicLoadDemoNetworks.fingerprint_inputs()
    assert before == ZMagicLoadDemoNetworks.fingerprint_inputs()
    os.utime(copy, (1.0, 1.0))
    changed = ZMagicLoadDemoNetworks.fingerprint_inputs()
    os.remove(copy)
    assert len({before, changed, ZMagicLoadDemoNetworks.fingerprint_inputs()}) == 3


@pytest.mark.parametrize("kind", ["clip", "parser", "recognizer", "landmarks"])
def test_a_missing_file_is_named(monkeypatch, tmp_path, kind):
    loader = getattr(demo_networks, f"demo_{kind}")
    (file,) = loader.__defaults__
    monkeypatch.setattr(loader, "__defaults__", (tmp_path / file.name,))
    with pytest.raises(
        FileNotFoundError,
        match=f"^Load Z-Magic Demo Networks: the demo file '{file.name}' is missing from the "
        "folder 'demo_models' of this pack; install the pack again, or copy",
    ):
        ZMagicLoadDemoNetworks.execute()


def test_the_configuration_of_clip_is_named_if_it_is_missing(tmp_path):
    weights = tmp_path / "unknown_architecture.safetensors"
    shutil.copy(demo_networks.CLIP_FILE, weights)
    with pytest.raises(FileNotFoundError, match="'unknown_architecture.json' is missing"):
        demo_networks.demo_clip(weights)


def test_a_damaged_file_is_named_with_the_node(monkeypatch, tmp_path):
    damaged = tmp_path / demo_networks.RECOGNIZER_FILE.name
    damaged.write_bytes(b"not weights")
    monkeypatch.setattr(demo_networks.demo_recognizer, "__defaults__", (damaged,))
    message = f"^Load Z-Magic Demo Networks: {damaged.name} is not a readable safetensors file"
    with pytest.raises(ValueError, match=message):
        ZMagicLoadDemoNetworks.execute()


def test_a_missing_package_is_named_with_the_node(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(
        ValueError, match="^Load Z-Magic Demo Networks: the Python package 'open_clip_torch'"
    ):
        ZMagicLoadDemoNetworks.execute()


def test_a_missing_picture_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(demo_model.load_photograph, "__defaults__", (tmp_path / "photograph.jpg",))
    message = "^Load Z-Magic Demo: the demo file 'photograph.jpg' is"
    with pytest.raises(FileNotFoundError, match=message):
        ZMagicLoadDemo.execute()
