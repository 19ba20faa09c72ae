"""Region by Prompt on SAM 3 as ComfyUI makes it, small and of random weights."""

import importlib.util

import comfy.model_base
import comfy.supported_models
import pytest
import torch
from comfy_execution.validation import validate_node_input
from skimage import data
from torch import Tensor

from zmagic.guidance.live_regions import LiveRegion
from zmagic.guidance.settings import preset
from zmagic.host.hooks import HostSettings, attach
from zmagic.nodes.demo_nodes import ZMagicLoadDemo
from zmagic.nodes.picture_energy_nodes import ZMagicColorPalette
from zmagic.nodes.region_node import ZMagicRegionByPrompt

from .architectures import patcher, random_weights
from .demo_sampling import empty_latent, said
from .derivatives import one_thread

if importlib.util.find_spec("comfy.ldm.sam3") is None:
    pytest.skip("this ComfyUI has no SAM 3", allow_module_level=True)

# A ninth of the patches that SAM 3 has, two blocks of its 32, and tokens of 64 numbers.
SMALL = {"embed_dim": 64, "depth": 2, "num_heads": 2, "img_size": 336, "global_att_blocks": (1,)}
SIDE = 336


@pytest.fixture(scope="module")
def sam3():
    """A MODEL of the host's own class, as its loader leaves it."""
    config = comfy.supported_models.SAM3({"image_model": "SAM3", **SMALL})
    config.set_inference_dtype(torch.float32, None)
    with torch.inference_mode():
        model = config.get_model({}, "", device="cpu")
        random_weights(model.diffusion_model)
        return patcher(model)


def prompt(*most: int, seed: int = 0) -> list:
    """A CONDITIONING as CLIP Text Encode makes it of one or several things."""
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(32) < 5).long()[None]
    with torch.inference_mode():
        things = [
            {
                "cond": torch.randn(1, 32, 64, generator=generator),
                "attention_mask": mask.clone(),
                "max_detections": count,
            }
            for count in most
        ]
    values = {"attention_mask": things[0]["attention_mask"]}
    if len(things) > 1 or most[0] > 1:
        values["sam3_multi_cond"] = things
    return [[things[0]["cond"], values]]


def photograph() -> Tensor:
    """An IMAGE of the size that the small network takes."""
    return torch.from_numpy(data.astronaut()[:SIDE, 60 : 60 + SIDE])[None].float() / 255.0


def region(model, conditioning, threshold: float = 0.0, every: int = 3) -> LiveRegion:
    with torch.inference_mode():
        return ZMagicRegionByPrompt.execute(
            sam3_model=model, conditioning=conditioning, threshold=threshold, refresh_every=every
        ).args[0]


@pytest.mark.slow
@pytest.mark.parametrize("most", [(1,), (2, 1)])
def test_masks_are_those_of_comfyui(sam3, most):
    """At the size that the network takes; ComfyUI's node resizes to 1008 pixels whatever it is."""
    from comfy_extras import nodes_sam3

    found = region(sam3, prompt(*most))
    image = photograph().movedim(-1, 1)
    with one_thread():
        mask = found.at(image)
        with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(nodes_sam3.comfy.utils, "common_upscale", lambda pixels, *_, **__: pixels)
            host, _ = nodes_sam3.SAM3_Detect.execute(
                sam3, photograph(), prompt(*most), threshold=0.0, refine_iterations=0
            ).args
    assert mask.shape == (1, 1, SIDE, SIDE) and 0 < mask.sum() < mask.numel()
    share = (mask[0, 0] == host[0].to(mask)).float().mean().item()
    print(f"most {most}: {mask.mean():.3f} of the picture, the same in {share:.5f}")
    assert share > 0.999


def test_every_energy_takes_a_mask_or_a_region_that_follows():
    kind = ZMagicColorPalette.INPUT_TYPES()["optional"]["region"][0]
    for given in ("MASK", ZMagicRegionByPrompt.RETURN_TYPES[0]):
        assert validate_node_input(given, kind)
    assert not validate_node_input("IMAGE", kind)


def test_what_is_not_certain_enough_is_not_found(sam3):
    with one_thread():
        assert not region(sam3, prompt(1), threshold=1.0).at(photograph().movedim(-1, 1)).any()


def test_other_models_and_text_encoders_are_refused(sam3):
    with pytest.raises(ValueError, match=r"^Region by Prompt: 'sam3_model' must be SAM 3"):
        region(object(), prompt(1))
    other = [[torch.zeros(1, 77, 768), {}]]
    with pytest.raises(ValueError, match=r"(?s)^Region by Prompt: 'conditioning' must be made by"):
        region(sam3, other)


class Remembering:
    """A finder that keeps what it finds."""

    def __init__(self, finder):
        self.finder, self.sought, self.networks = finder, finder.sought, finder.networks
        self.masks: list[Tensor] = []

    def __call__(self, image: Tensor) -> Tensor:
        self.masks.append(self.finder(image).clone())
        return self.masks[-1]


@pytest.mark.slow
def test_a_run_guides_where_it_was_found_as_by_that_mask(sam3):
    """The demo model, which looks once: the picture is that of the mask that was found."""
    from nodes import common_ksampler

    finder = Remembering(region(sam3, prompt(1)).finder)
    with torch.inference_mode():
        model, _, vae, *_ = ZMagicLoadDemo.execute().args

    def result(where: LiveRegion | Tensor, strength: float = 0.3) -> tuple[Tensor, list[str]]:
        traces = []
        settings = HostSettings(preset("balanced", strength=strength))
        with torch.inference_mode(), one_thread():
            chain = ZMagicColorPalette.execute(
                colors="#ff0000", lightness=1.0, weight=1.0, start=0.0, end=1.0, region=where
            ).args[0]
            guided = attach(model, chain, settings, vae, traces.append)
            cond, latent = (said(), said()), empty_latent()
            (out,) = common_ksampler(guided, 3, 3, 1.0, "dpmpp_2m", "karras", *cond, latent)
        return out["samples"], traces[0].notes

    live = LiveRegion(finder, every=100)
    latent, notes = result(live)
    assert notes == ["Color Palette: what the prompt names was found in 1 of 1 looks"]
    first, finished = finder.masks
    assert first.any() and not torch.equal(first, finished)
    masked, _ = result(first)
    torch.testing.assert_close(latent, masked)
    assert (latent - result(1.0 - first)[0]).abs().max() > 0.05
