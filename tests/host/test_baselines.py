"""The published methods guide the demo model in ComfyUI, and cost what they say."""

import pytest
import torch

from zmagic.guidance.settings import preset
from zmagic.host.demo_model import load_photograph
from zmagic.host.hooks import HostSettings, attach
from zmagic.lab.photograph import photograph_conditions
from zmagic.nodes.demo_nodes import ZMagicLoadDemo

from .demo_sampling import empty_latent, said

NAMES = ("DSG baseline", "TFG baseline", "UGD baseline")
STEPS = 6
SEED = 3


@pytest.fixture(scope="module")
def traces():
    """The trace of a run of each, and of the unguided picture of the same noise."""
    from nodes import common_ksampler

    conditions = photograph_conditions(load_photograph().movedim(-1, 1))
    with torch.inference_mode():
        model, _, vae = ZMagicLoadDemo.execute().args[:3]
        # Nearly all of the time goes to the decoder, which is faster in this order.
        vae.first_stage_model.to(memory_format=torch.channels_last)

    def trace(settings):
        traces = []
        guided = attach(model, conditions, HostSettings(settings), vae, traces.append)
        with torch.inference_mode():
            cond, latent = (said(), said()), empty_latent()
            common_ksampler(guided, SEED, STEPS, 1.0, "euler", "karras", *cond, latent)
        return traces[0]

    unguided = trace(preset("balanced", strength=0.0))
    return {name: trace(preset(name, strength=0.3)) for name in NAMES}, unguided


@pytest.mark.parametrize("name", NAMES)
def test_every_energy_falls(traces, name):
    guided, unguided = traces
    assert not guided[name].warnings
    for condition, (energy,) in guided[name].final.items():
        assert energy < unguided.final[condition][0], condition


def test_operations_are_those_of_what_runs(traces):
    """Decoder: once with DSG, for 4 neighbors of 5 points with TFG, at 5 points twice with UGD."""
    costs = {name: trace.cost for name, trace in traces[0].items()}
    decoder = costs["DSG baseline"]["decoder"]
    assert costs["TFG baseline"]["decoder"] == pytest.approx(20 * decoder, rel=1e-3)
    assert costs["UGD baseline"]["decoder"] == pytest.approx(10 * decoder, rel=1e-3)
    # The model's forwards, without the one check of its gradient: a look a step, two with UGD.
    check = 1.0 / STEPS
    looks = {name: cost["denoiser"] - check for name, cost in costs.items()}
    assert looks["TFG baseline"] == pytest.approx(looks["DSG baseline"], rel=1e-3)
    assert looks["UGD baseline"] == pytest.approx(2 * looks["DSG baseline"], rel=1e-3)
