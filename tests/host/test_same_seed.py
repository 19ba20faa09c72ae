"""One seed, one picture: alone, in a batch, taken out of it, and in a sampling that is split."""

from types import SimpleNamespace

import nodes
import pytest
import torch
from comfy.samplers import CFGGuider, calculate_sigmas, sampler_object
from comfy_extras.nodes_custom_sampler import (
    Noise_EmptyNoise,
    Noise_RandomNoise,
    SamplerCustomAdvanced,
)

from zmagic.guidance.conditions import Condition
from zmagic.guidance.energies import ColorPalette, ReferenceImage
from zmagic.guidance.settings import preset
from zmagic.host.batch_index import batch_indices
from zmagic.host.demo_model import LATENT_CHANNELS
from zmagic.host.hooks import HostSettings, attach
from zmagic.nodes.demo_nodes import ZMagicLoadDemo

from .demo_sampling import empty_latent, said
from .derivatives import one_thread

SEED = 12
STEPS = 3
SHAPE = (LATENT_CHANNELS, 16, 16)


@pytest.fixture(scope="module")
def demo():
    """The trained demo model: what a random one answers says nothing of the noise it sees."""
    with torch.inference_mode():
        model, _, _, photograph, *_ = ZMagicLoadDemo.execute().args
    reference = photograph.movedim(-1, 1)
    conditions = (
        Condition("colors", ColorPalette(reference=reference)),
        Condition("likeness", ReferenceImage(reference)),
    )
    return SimpleNamespace(model=model, conditioning=said(), conditions=conditions)


def guided(demo, **settings):
    """The demo model under the default preset, with changes."""
    chosen = HostSettings(preset("balanced", **settings), "linear_rgb")
    return attach(demo.model, demo.conditions, chosen)


def ksampler(demo, model, latent: dict, denoise: float = 1.0) -> torch.Tensor:
    c = demo.conditioning
    with torch.inference_mode(), one_thread():
        return nodes.common_ksampler(
            model, SEED, STEPS, 1.0, "euler", "karras", c, c, latent, denoise=denoise
        )[0]["samples"]


def split(demo, model, latent: dict, at: int = 1) -> torch.Tensor:
    """The same sampling over two KSampler (Advanced), the first one handing on its noise."""
    c = demo.conditioning
    with torch.inference_mode(), one_thread():
        node = nodes.KSamplerAdvanced()
        common = (SEED, STEPS, 1.0, "euler", "karras", c, c)
        (first,) = node.sample(model, "enable", *common, latent, 0, at, "enable")
        return node.sample(model, "disable", *common, first, at, 10_000, "disable")[0]["samples"]


def third(latent: dict) -> dict:
    return nodes.LatentFromBatch().frombatch(latent, 2, 1)[0]


def difference(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).norm() / second.norm())


EVERY_DRAW = pytest.mark.parametrize(
    "settings",
    [None, {}, {"fresh_noise": None}, {"random_shift": 6}],
    ids=["unguided", "default", "re-noising of FreeDoM", "random shifts"],
)


@pytest.mark.slow
@EVERY_DRAW
def test_a_picture_of_a_batch_comes_again_alone_in_another_batch_and_split(demo, settings):
    """The plain host does it, too: the difference is below 1e-4 with euler."""
    model = demo.model if settings is None else guided(demo, **settings)
    together = ksampler(demo, model, empty_latent(3))
    assert difference(ksampler(demo, model, third(empty_latent(3))), together[2:3]) < 1e-4
    assert difference(ksampler(demo, model, empty_latent(1)), together[:1]) < 1e-4
    # The second half gets no noise, from which the picture's index could be seen.
    assert difference(split(demo, model, third(empty_latent(3))), together[2:3]) < 1e-4
    assert difference(split(demo, model, empty_latent(3)), together) < 1e-4


def test_a_guider_that_goes_on_without_noise_keeps_its_draws(demo):
    """SplitSigmas and Disable Noise, which has no seed."""
    guider = CFGGuider(guided(demo))
    guider.set_conds(demo.conditioning, demo.conditioning)
    guider.set_cfg(1.0)
    sampling = guider.model_patcher.get_model_object("model_sampling")
    sigmas = calculate_sigmas(sampling, "karras", STEPS)

    def run(noise, sigmas, latent):
        with torch.inference_mode(), one_thread():
            sampler = sampler_object("euler")
            return SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, latent).args[0]

    whole = run(Noise_RandomNoise(SEED), sigmas, empty_latent(2))["samples"]
    half = run(Noise_RandomNoise(SEED), sigmas[:2], empty_latent(2))
    parts = run(Noise_EmptyNoise(), sigmas[1:], half)["samples"]
    assert difference(parts, whole) < 1e-4


def test_the_guided_picture_is_another_one_and_follows_the_seed(demo):
    """This shows that the test above compares draws that matter."""
    model = guided(demo)
    plain, picture = (
        ksampler(demo, demo.model, empty_latent(2)),
        ksampler(demo, model, empty_latent(2)),
    )
    assert difference(picture, plain) > 0.1
    assert difference(picture[1:], picture[:1]) > 0.1


def noise_seen(demo, sample, **settings) -> list[torch.Tensor]:
    """The noise in what the model is given at each evaluation, and the initial noise first."""
    seen = []

    def post_cfg(args):
        kept = (args[name].detach().cpu().clone() for name in ("input", "denoised", "sigma"))
        seen.append(tuple(kept))
        return args["denoised"]

    model = demo.model.clone()
    model.set_model_sampler_post_cfg_function(post_cfg)
    # So weak that a repeat's latent is the last prediction and new noise, and nothing else.
    chosen = HostSettings(
        preset("quality", strength=1e-6, fresh_noise=1.0, **settings), "linear_rgb"
    )
    sample(attach(model, demo.conditions, chosen))
    repeats = [
        (x - before[1]) / before[2][0]
        for before, (x, _, sigma) in zip(seen, seen[1:], strict=False)
        if sigma[0] == before[2][0] and difference(x, before[0]) > 0.1  # not the slope's check
    ]
    return repeats


def correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])


@pytest.mark.slow
def test_fresh_noise_has_nothing_to_do_with_the_initial_noise(demo):
    """Correlation within chance and standard deviation 1, from the first step, in image to image,
    and in the second of two samplers."""
    batch = 4
    initial = torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(SEED))
    image = {"samples": torch.randn(batch, *SHAPE, generator=torch.Generator())}
    chance = 4.0 / initial.numel() ** 0.5
    chance_of_std = chance / 2.0**0.5
    runs = {
        "text to image": lambda model: ksampler(demo, model, empty_latent(batch)),
        "image to image": lambda model: ksampler(demo, model, image, denoise=0.3),
        "split": lambda model: split(demo, model, empty_latent(batch)),
    }
    for name, run in runs.items():
        repeats = noise_seen(demo, run)
        assert len(repeats) >= 4, name  # two at each noise level of a sampler
        for fresh in repeats:
            assert abs(correlation(fresh, initial)) < chance, name
            assert abs(float(fresh.std()) - 1.0) < chance_of_std, name
        for one, other in zip(repeats, repeats[1:], strict=False):
            assert abs(correlation(one, other)) < chance, name


def test_the_index_of_a_picture_is_read_from_its_noise():
    stream = torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(3))
    assert batch_indices(stream[:4], 3) == [0, 1, 2, 3]
    assert batch_indices(stream[[5, 2]], 3) == [5, 2]
    assert batch_indices(stream[[2, 2]], 3) == [2, 2]
    assert batch_indices(stream[:2], 4) is None
    assert batch_indices(torch.zeros(2, *SHAPE), 3) is None
    latent = {"samples": torch.zeros(2, *SHAPE), "batch_index": [4, 1]}
    assert latent and batch_indices(torch.zeros(2, *SHAPE), 3) == [4, 1]
    assert batch_indices(stream[:1], 2**64 - 1) is None  # the largest seed there is
