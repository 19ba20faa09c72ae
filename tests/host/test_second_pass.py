"""What the blueprint *Finish the likeness* says of the picture that it is given."""

import json
from pathlib import Path

import pytest
import torch
from nodes import VAEDecode, VAEEncode, common_ksampler
from torch.nn import functional as F

from zmagic.guidance.settings import preset
from zmagic.host.demo_model import LAYOUT_FILE, MAN_FILE, WOMAN_FILE, load_photograph
from zmagic.host.demo_networks import demo_locator
from zmagic.host.hooks import HostSettings, attach
from zmagic.nodes.demo_nodes import ZMagicLoadDemo, ZMagicLoadDemoNetworks
from zmagic.nodes.face_energy_nodes import ZMagicFaceIdentity

from .demo_sampling import said

FILE = Path(__file__).resolve().parents[2] / "subgraphs" / "api" / "finish_the_likeness.json"
STEPS = 6


def part(node: str) -> dict:
    """The inputs of a node of the blueprint."""
    prompt = json.loads(FILE.read_text(encoding="utf-8"))
    (found,) = (each for each in prompt.values() if each["class_type"] == node)
    return found["inputs"]


def coarse(image: torch.Tensor) -> torch.Tensor:
    """What is where, without details: means of a sixteenth of the side."""
    return F.avg_pool2d(image.movedim(-1, 1), image.shape[1] // 16)


@pytest.mark.slow
def test_the_composition_stays_and_details_change_everywhere():
    sampler, settings = part("ZMagicSampler"), part("ZMagicSettings")
    before = load_photograph(LAYOUT_FILE)
    with torch.inference_mode():
        model, _, vae, *_ = ZMagicLoadDemo.execute().args
        prompt = said()
        _, _, recognizer, landmark_network = ZMagicLoadDemoNetworks.execute().args
        condition = ZMagicFaceIdentity.execute(
            recognizer=recognizer,
            reference=load_photograph(WOMAN_FILE),
            face_location=demo_locator(landmark_network),
            weight=1.0,
            start=0.0,
            end=1.0,
        ).args[0]
        guidance = preset(settings["preset"], strength=settings["strength"])
        guided = attach(model, condition, HostSettings(guidance), vae)
        (latent,) = VAEEncode().encode(vae, before)
        (same,) = VAEDecode().decode(vae, latent)  # what the autoencoder alone changes
        chosen = (1, STEPS, 1.0, sampler["sampler_name"], sampler["scheduler"], prompt, prompt)
        (made,) = common_ksampler(guided, *chosen, latent, denoise=sampler["denoise"])
        (after,) = VAEDecode().decode(vae, made)
    other = (coarse(before) - coarse(load_photograph(MAN_FILE))).square().mean().sqrt()
    moved = (coarse(after) - coarse(same)).square().mean().sqrt()
    changed = ((after - same).abs().amax(-1) > 1.0 / 255.0).float().mean()
    print(f"coarse {moved:.4f}, another portrait {other:.4f}, changed {changed:.3f} of all pixels")
    print(f"all pixels {(after - same).square().mean().sqrt():.4f}")
    assert moved < 0.2 * other
    assert changed > 0.9
