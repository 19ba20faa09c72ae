"""The strength that a run finds for itself, in the host: what it is, costs and says."""

import json
import logging
from dataclasses import replace

import pytest
import torch

from zmagic.guidance.calibration import FACTORS
from zmagic.guidance.settings import preset
from zmagic.host.hooks import HostSettings
from zmagic.nodes.sampler_nodes import ZMagicSampler
from zmagic.nodes.settings_node import ZMagicSettings

from .. import json_schema
from . import architectures
from .derivatives import one_thread, repeated
from .test_hooks import EPS, FLOW, conditions, guided, sample
from .test_notices import in_graph, prompt_server, sent
from .test_run_reports import SCHEMA

__all__ = ["prompt_server"]  # a fixture


@pytest.fixture(scope="module")
def specimens():
    with torch.inference_mode():
        return {name: architectures.DIFFUSION[name]() for name in (EPS, FLOW)}


def settings(name="balanced", **changes) -> HostSettings:
    chosen = preset(name, **{"calibrate": True, **changes})
    return HostSettings(chosen, "linear_rgb", notes=("A note of the settings.",))


@pytest.mark.parametrize("family", [EPS, FLOW])
@pytest.mark.parametrize("name", ["balanced", "quality", "fast", "FreeDoM baseline"])
def test_the_run_is_the_one_of_the_strength_that_was_found(specimens, family, name):
    samples, trace = guided(specimens[family], settings(name))
    found = trace.calibration
    assert found.strength in found.tried and len(found.tried) == len(FACTORS)
    plain, without = guided(
        specimens[family], settings(name, calibrate=False, strength=found.strength)
    )
    assert repeated(samples, plain)
    before, now = without.totals(), trace.totals()
    assert now["forwards"].get("denoiser") == before["forwards"].get("denoiser")
    assert now["forwards"]["decoder"] == before["forwards"]["decoder"] + len(FACTORS)
    assert now["energy_calls"] == before["energy_calls"] + len(conditions()) * len(FACTORS)
    assert now["backwards"] == before["backwards"]


def test_it_says_so_everywhere(specimens, prompt_server, caplog):
    specimen = specimens[EPS]
    node = in_graph(ZMagicSampler, "7")
    (made,) = ZMagicSettings.execute("balanced", calibrate=True, decoder="linear_rgb").args
    assert made.guidance == preset("balanced", calibrate=True)
    made = replace(made, notes=("A note of the settings.",))

    def run(**options):
        with torch.inference_mode(), one_thread(), caplog.at_level(logging.INFO):
            return node.execute(
                specimen.patcher,
                specimen.positive,
                specimen.negative,
                {"samples": torch.zeros(2, *specimen.latent.shape[1:])},
                conditions(),
                settings=made,
                **{"seed": 3, "steps": 3, "cfg": 3.0, "denoise": 1.0},
                **{"sampler_name": "euler", "scheduler": "normal", **options},
            ).args

    latent, _, text, _ = run()
    report = json.loads(text)
    assert list(json_schema.faults(report, SCHEMA)) == []
    words = f"calibrated: strength {report['calibration']['strength']:.3g}"
    assert words in report["words"] and "A note of the settings." in report["notes"]
    logged = [record.getMessage() for record in caplog.records]
    assert sum(line.startswith(f"Z-Magic: {words}, colors ") for line in logged) == 1
    assert sent(prompt_server)[-1][1].endswith(report["words"])

    beside, _, text, unguided = run(compare=True)
    assert torch.equal(beside["samples"], latent["samples"])
    assert torch.equal(unguided["samples"], sample(specimen, specimen.patcher))
    assert json.loads(text)["calibration"] == report["calibration"]
