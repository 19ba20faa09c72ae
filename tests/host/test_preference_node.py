"""Preference Energy on files as their publishers write them, against what these compute of them."""

import json
import os
from collections import OrderedDict
from pathlib import Path

import folder_paths
import numpy as np
import open_clip
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from skimage import data
from torch import nn
from torchvision.transforms.v2 import functional as vision

from zmagic.guidance.networks.transformers_clip import from_transformers
from zmagic.host.demo_networks import demo_clip
from zmagic.nodes.demo_nodes import ZMagicLoadDemo
from zmagic.nodes.openclip_loader_node import ZMagicLoadOpenCLIP
from zmagic.nodes.preference_node import ZMagicPreference

from .demo_sampling import sampled
from .derivatives import one_thread, slope_of
from .published_openclip import added_architectures

SMALL = "zmagic-small-preference"
CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 48, "head_width": 16, "layers": 2},
    "text_cfg": {"context_length": 77, "width": 32, "heads": 2, "layers": 2},
}
PICKSCORE, HPS, PLAIN = "PickScore_v1.safetensors", "HPS_v2.1_compressed.pt", "openai.safetensors"
HEAD, LINEAR_HEAD = "sac+logos+ava1-l14-linearMSE.pth", "sa_0_4_vit_l_14_linear.pth"
PROMPT = "a photograph of an astronaut, smiling"
COMMON = {"weight": 1.0, "start": 0.0, "end": 1.0}
SCORERS = {
    "prompt": {"scorer": "PickScore or HPSv2", "prompt": PROMPT},
    "aesthetic": {"scorer": "LAION aesthetic"},
    "opposites": {"scorer": "CLIP-IQA", "good": "Good photo.", "bad": "Bad photo."},
}
CLIP_CONFIG = transformers.CLIPConfig(
    projection_dim=24,
    text_config={
        "hidden_size": 32,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_act": "gelu",
        "projection_dim": 24,
    },
    vision_config={
        "hidden_size": 48,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": 64,
        "patch_size": 16,
        "hidden_act": "gelu",
        "projection_dim": 24,
    },
)


@pytest.fixture(scope="module")
def pickscore():
    """A CLIP of transformers, as PickScore is one; its scale is the largest, as PickScore's."""
    torch.manual_seed(0)
    model = transformers.CLIPModel(CLIP_CONFIG).eval().requires_grad_(False)
    model.logit_scale.fill_(np.log(100.0))
    return model


@pytest.fixture(scope="module")
def plain():
    """A CLIP of open_clip, as HPSv2 is one."""
    torch.manual_seed(1)
    model = open_clip.CLIP(**CONFIG).eval().requires_grad_(False)
    model.logit_scale.fill_(np.log(100.0))
    return model


@pytest.fixture(scope="module")
def head():
    """LAION's second aesthetic predictor: five linear layers, dropout between the first four."""
    torch.manual_seed(2)
    sizes = (24, 1024, 128, 64, 16, 1)
    linear = [nn.Linear(*pair) for pair in zip(sizes, sizes[1:], strict=False)]
    drops = [nn.Dropout(part) for part in (0.2, 0.2, 0.1)]
    layers = [each for pair in zip(linear, drops, strict=False) for each in pair]
    return nn.Sequential(*layers, *linear[3:]).eval()


@pytest.fixture(scope="module", autouse=True)
def folders(tmp_path_factory, pickscore, plain, head):
    """models/open_clip and models/aesthetic with files as they are published."""
    root = tmp_path_factory.mktemp("models")
    config = root / f"{SMALL}.json"
    config.write_text(json.dumps(CONFIG))
    weights, heads = root / "open_clip", root / "aesthetic"
    weights.mkdir()
    heads.mkdir()
    save_file(pickscore.state_dict(), weights / PICKSCORE, {"format": "pt"})
    half = OrderedDict((name, value.half()) for name, value in plain.state_dict().items())
    torch.save({"state_dict": half}, weights / HPS)
    save_file(dict(plain.state_dict()), weights / PLAIN)
    state = OrderedDict((f"layers.{name}", value) for name, value in head.state_dict().items())
    torch.save(state, heads / HEAD)
    torch.save(nn.Linear(24, 1).state_dict(), heads / LINEAR_HEAD)
    with added_architectures(), pytest.MonkeyPatch.context() as patch:
        open_clip.add_model_config(config)
        for name in ("open_clip", "aesthetic"):
            patch.setitem(folder_paths.folder_names_and_paths, name, ([str(root / name)], {".pth"}))
        yield root


def load(weights: str):
    with torch.inference_mode():
        return ZMagicLoadOpenCLIP.execute(
            architecture=SMALL, weights=weights, download=False, precision="auto"
        ).args[0]


def condition(weights: str, scorer: str, head: str = HEAD, **inputs):
    """The condition that the node puts out in a prompt."""
    chosen = {**SCORERS[scorer], **inputs}
    with torch.inference_mode(), one_thread():
        openclip = load(weights) if isinstance(weights, str) else weights
        (chain,) = ZMagicPreference.execute(
            openclip=openclip, scorer=chosen, head=head, **COMMON
        ).args
    return chain[-1]


def photograph() -> np.ndarray:
    """A picture that is not square, softened so that no bicubic weight leaves [0, 1]."""
    return (64 + data.astronaut()[:300, 50:450] // 2).astype(np.uint8)


def as_image(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).movedim(-1, 0)[None].float() / 255.0


def score(condition, image: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return condition.energy.scores(image)[0]


# ---------------------------------------------------------------- the published scores


def test_pickscore_is_what_transformers_computes_of_the_file(pickscore):
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}
    )
    pixels = processor(Image.fromarray(photograph()), return_tensors="pt")["pixel_values"]
    tokens = open_clip.SimpleTokenizer()([PROMPT])
    result = pickscore(input_ids=tokens, pixel_values=pixels)
    found = score(condition(PICKSCORE, "prompt"), as_image(photograph()))
    # The processor rounds to 8 bits: the score has hundredths of a cosine.
    torch.testing.assert_close(found, result.logits_per_image[0], rtol=0.0, atol=2e-2)


def test_hpsv2_is_what_open_clip_computes_of_the_whole_picture(plain):
    """As the package hpsv2 does: the longer side is scaled, the rest is black."""
    resized = vision.resize(
        as_image(photograph()), [48, 64], vision.InterpolationMode.BICUBIC, antialias=True
    )
    pixels = vision.normalize(
        vision.center_crop(resized, [64, 64]),
        list(open_clip.OPENAI_DATASET_MEAN),
        list(open_clip.OPENAI_DATASET_STD),
    )
    image, text, _ = plain(pixels, open_clip.SimpleTokenizer()([PROMPT]))
    found = score(condition(HPS, "prompt"), as_image(photograph()))
    expected = 100.0 * (image @ text.T)[0]
    torch.testing.assert_close(found, expected, rtol=0.0, atol=2e-2)  # the file has half precision


def test_the_aesthetic_score_is_what_the_head_computes(plain, head):
    made = condition(PLAIN, "aesthetic")
    pixels = made.energy.preprocessing(as_image(photograph()))
    with torch.no_grad():
        expected = head(plain.encode_image(pixels, normalize=True))[0]
    torch.testing.assert_close(score(made, as_image(photograph())), expected, rtol=1e-4, atol=1e-4)
    linear = torch.load(folder_paths.get_full_path("aesthetic", LINEAR_HEAD), weights_only=True)
    with torch.no_grad():
        embedding = plain.encode_image(pixels, normalize=True)[0]
    expected = embedding @ linear["weight"][0] + linear["bias"]
    found = score(condition(PLAIN, "aesthetic", LINEAR_HEAD), as_image(photograph()))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_clip_iqa_is_the_softmax_of_both_logits(plain):
    made = condition(PLAIN, "opposites", good="Good photo.\nSharp photo.", bad="Bad photo.\nBlurry")
    texts = ["Good photo.", "Sharp photo.", "Bad photo.", "Blurry"]
    with torch.no_grad():
        pixels = made.energy.preprocessing(as_image(photograph()))
        image, text, scale = plain(pixels, open_clip.SimpleTokenizer()(texts))
        logits = (scale * image @ text.T)[0]
    expected = logits.view(2, 2).softmax(0)[0]
    found = score(made, as_image(photograph())).sigmoid()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_the_published_architecture_has_the_names_of_open_clips():
    """PickScore's own configuration: ViT-H-14, every weight by name and shape."""
    vision_part = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32}
    text_part = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
    heads = {"num_attention_heads": 16, "hidden_act": "gelu", "projection_dim": 1024}
    config = transformers.CLIPConfig(
        projection_dim=1024,
        vision_config={**vision_part, **heads, "patch_size": 14, "image_size": 224},
        text_config={**text_part, **heads},
    )
    with torch.device("meta"):
        theirs = from_transformers(transformers.CLIPModel(config).state_dict())
        ours = open_clip.CustomTextCLIP(**open_clip.get_model_config("ViT-H-14")).state_dict()
    shapes = [{name: value.shape for name, value in each.items()} for each in (theirs, ours)]
    assert shapes[0] == shapes[1] and len(shapes[0]) > 500


# ---------------------------------------------------------------- the node


@pytest.mark.parametrize(
    ("weights", "scorer"),
    [(PICKSCORE, "prompt"), (HPS, "prompt"), (PLAIN, "aesthetic"), (PLAIN, "opposites")],
)
def test_energies_have_gradients_outside_the_prompt(weights, scorer):
    made = condition(weights, scorer)
    assert made.name == "Preference"
    region = torch.zeros(1, 1, 48, 72)
    region[..., 10:40, 20:60] = 1.0
    with one_thread():
        values, slope = slope_of(made, torch.rand(2, 3, 48, 72), region)
    assert values.shape == (2,) and (values > 0.0).all()
    assert slope.isfinite().all() and slope.abs().max() > 0.0
    assert not slope[(region == 0.0).expand_as(slope)].any()


def test_weights_that_fit_say_nothing_and_others_are_told(caplog):
    for weights, scorer in ((PICKSCORE, "prompt"), (HPS, "prompt"), (PLAIN, "aesthetic")):
        condition(weights, scorer)
    ours = [record.message for record in caplog.records if "Preference" in record.message]
    assert not ours
    condition(PLAIN, "prompt", prompt="a cat")
    condition(PICKSCORE, "aesthetic")
    condition(PLAIN, "opposites", good="a\nb", bad="a\nc")
    told = " ".join(r.message for r in caplog.records if "Preference" in r.message)
    assert "load the weights of PickScore or HPSv2 at Load OpenCLIP" in told
    assert "heads belong to OpenAI's ViT-L-14" in told
    assert "'a' stands against itself, without effect" in told and "'b'" not in told


def test_the_fingerprint_follows_the_head():
    path = Path(folder_paths.get_full_path("aesthetic", HEAD))

    def stamp():
        return ZMagicPreference.fingerprint_inputs(SCORERS["aesthetic"], HEAD, openclip=None)

    before = stamp()
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 10**9))
    assert stamp() != before
    assert ZMagicPreference.fingerprint_inputs(SCORERS["opposites"], "gone.pth") == ()


@pytest.mark.parametrize(
    ("scorer", "inputs", "message"),
    [
        ("prompt", {"prompt": " \n"}, "expected the prompt of the picture in 'prompt', got none"),
        ("opposites", {"bad": ""}, "write as many lines into 'bad' as into 'good'.*got 1.*and 0"),
        ("aesthetic", {"head": "mine.pth"}, "aesthetic head 'mine.pth' not found"),
    ],
)
def test_errors_say_what_to_do(scorer, inputs, message):
    with pytest.raises(ValueError, match=f"(?s)^Preference Energy: {message}"):
        condition(PLAIN, scorer, **inputs)


def test_a_missing_head_and_missing_weights_say_where_to_get_them():
    with pytest.raises(ValueError) as error:
        condition(PLAIN, "aesthetic", "ava+logos.pth")
    for part in ("'ava+logos.pth'", "improved-aesthetic-predictor", "3.7 MB", "Apache 2.0"):
        assert part in str(error.value)
    for name, part in (
        ("HPS_v2.1_compressed.pt", "huggingface.co/xswu/HPSv2"),
        ("PickScore_v1.safetensors", "huggingface.co/yuvalkirstain/PickScore_v1"),
    ):
        path = Path(folder_paths.get_folder_paths("open_clip")[0]) / name
        kept = path.rename(path.with_suffix(".kept"))
        try:
            for download in (False, True):
                with pytest.raises(ValueError, match="ViT-H-14") as error:
                    ZMagicLoadOpenCLIP.execute(
                        architecture="ViT-H-14", weights=name, download=download, precision="auto"
                    )
                assert part in str(error.value) and " GB, license" in str(error.value)
        finally:
            kept.rename(path)


class Harmful:
    """Would run code if it were unpickled."""

    def __reduce__(self):
        return (print, ("this must not be printed",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html>", "it is a web page: download the file itself"),
        (b"", "it is an empty one"),
        (Harmful(), "it holds Python objects beside weights"),
        ({"layers.0.weight": torch.ones(1, 24)}, "is no aesthetic head: get sac"),
        ({"weight": torch.ones(2, 24), "bias": torch.ones(2)}, "a head with one output, got 2"),
        ({"weight": torch.ones(1, 768), "bias": torch.ones(1)}, "load OpenAI's ViT-L-14 at Load"),
    ],
)
def test_other_files_are_no_heads(folders, content, message, capsys):
    path = folders / "aesthetic" / "other.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    try:
        with pytest.raises(ValueError, match=f"(?s)^Preference Energy: .*{message}"):
            condition(PLAIN, "aesthetic", "other.pth")
    finally:
        path.unlink()
    assert "must not" not in capsys.readouterr().out


# ---------------------------------------------------------------- guidance

OPPOSITES = {
    "good": "a photo of a young woman with long blond hair, wearing white",
    "bad": "a photo of a young woman with short black hair, wearing black",
}


@pytest.mark.slow
def test_a_pair_of_opposites_is_followed_and_another_clip_agrees():
    """Guided by the demo's CLIP, measured by the evaluator, which has seen no gradient of it."""
    with torch.inference_mode():
        model, _, vae = ZMagicLoadDemo.execute().args[:3]
        clip = demo_clip()
    evaluators = Path(__file__).resolve().parents[2] / "lab" / "evaluators"
    evaluator = demo_clip(evaluators / "clip_evaluator.safetensors")
    guide, other = (condition(each, "opposites", **OPPOSITES) for each in (clip, evaluator))

    def probabilities(strength: float) -> list[float]:
        image, _ = sampled(model, vae, guide, strength, steps=4, batch=2, settings="quality")
        with torch.no_grad():
            scores = [each.energy.scores(image.clone()) for each in (guide, other)]
        return [each.sigmoid().mean().item() for each in scores]

    plain, guided = probabilities(0.0), probabilities(0.2)
    print(f"guide {plain[0]:.3f} -> {guided[0]:.3f}, evaluator {plain[1]:.3f} -> {guided[1]:.3f}")
    assert guided[0] > plain[0] + 0.1 and guided[1] > plain[1]
