"""Robust Views in the host: which conditions see views, and what the node says."""

import pytest
import torch

from zmagic.guidance.robust_views import RobustViews
from zmagic.host.hooks import attach
from zmagic.nodes.picture_energy_nodes import ZMagicColorPalette, ZMagicSketch
from zmagic.nodes.robust_views_node import ZMagicRobustViews

from . import architectures
from .derivatives import one_thread
from .test_energy_nodes import chain, picture
from .test_hooks import CHEAP, EPS, sample
from .test_notices import in_graph, prompt_server, sent

__all__ = ["prompt_server"]  # a fixture

OPTIONS = {"views": 2, "noise": 0.1, "blur": 0.0, "shift": 0.05, "flip": False}


def through_views(conditions, node=ZMagicRobustViews, **options):
    with torch.inference_mode():
        return node.execute(conditions, **{**OPTIONS, **options}).args[0]


def test_conditions_that_come_in_see_views_and_those_behind_do_not(prompt_server):
    before = chain(ZMagicColorPalette, reference=picture())
    seen = through_views(before, in_graph(ZMagicRobustViews, "701"))
    assert isinstance(seen[0].energy, RobustViews) and seen[0].name == before[0].name
    assert not isinstance(before[0].energy, RobustViews)
    behind = chain(ZMagicSketch, reference=picture(), conditions=seen)
    assert [isinstance(c.energy, RobustViews) for c in behind] == [True, False]
    assert not sent(prompt_server)
    both = through_views(behind, in_graph(ZMagicRobustViews, "701"))
    assert both[0] is seen[0] and both[1].energy.options.shift == 0.0
    (_, text, _) = sent(prompt_server)[-1]
    assert "keeps them" in text and "Sketch is seen without shift" in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"noise": 0.0, "shift": 0.0}, "raise 'noise', 'blur' or 'shift'"),
        ({"noise": 0.0, "shift": 0.0, "blur": 1.0}, "one is made"),
    ],
)
def test_options_without_effect_are_said(prompt_server, options, words):
    through_views(
        chain(ZMagicColorPalette, reference=picture()), in_graph(ZMagicRobustViews, "7"), **options
    )
    assert words in sent(prompt_server)[-1][1]


def test_a_run_has_the_same_views_for_the_same_seed_alone_and_in_a_batch():
    with torch.inference_mode():
        specimen = architectures.DIFFUSION[EPS]()
    conditions = chain(ZMagicColorPalette, reference=picture())
    traces = []
    with one_thread():
        model = attach(specimen.patcher, through_views(conditions), CHEAP, None, traces.append)
        first, again = (sample(specimen, model) for _ in range(2))
        alone = sample(specimen, model, batch=1)
        plain = sample(specimen, attach(specimen.patcher, conditions, CHEAP))
    assert torch.equal(first, again) and not torch.equal(first, plain)
    assert (alone - first[:1]).abs().max() < 1e-5 * first.abs().max()
    assert all(record.energy_calls == 2 for record in traces[0].steps)
    assert traces[0].cost
