"""What a run shows while it goes on, and that it can be cancelled at any network."""

import logging

import comfy.model_management
import comfy.utils
import pytest
import torch

from zmagic.guidance.conditions import Condition
from zmagic.guidance.settings import preset
from zmagic.host.hooks import HostSettings, attach
from zmagic.host.progress import PARTS
from zmagic.host.run import KEY
from zmagic.nodes.sampler_nodes import ZMagicApply, ZMagicSampler

from . import architectures
from .derivatives import one_thread
from .test_hooks import CHEAP, EPS, conditions, sample
from .test_notices import in_graph, prompt_server, sent

__all__ = ["prompt_server"]  # a fixture

STEPS, REPEATS = 2, 3
THRICE = HostSettings(preset("quality", time_travel=REPEATS), "linear_rgb")


@pytest.fixture(scope="module")
def specimen():
    with torch.inference_mode():
        return architectures.DIFFUSION[EPS]()


@pytest.fixture
def bar(monkeypatch):
    """Every value and total that the host's progress bar is brought to."""
    moves: list[tuple[int, int]] = []

    def hook(value, total, preview, **kwargs):
        moves.append((value, total))

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    for least in ("PROGRESS_THROTTLE_MIN_INTERVAL", "PROGRESS_THROTTLE_MIN_PERCENT"):
        monkeypatch.setattr(comfy.utils, least, 0.0, raising=False)
    return moves


def test_the_bar_moves_within_a_step_and_agrees_with_the_hosts_own(specimen, bar):
    sample(specimen, attach(specimen.patcher, conditions(), THRICE), steps=STEPS)
    ours = [value for value, total in bar if total == STEPS * PARTS]
    shares = [value / total for value, total in bar]
    assert shares == sorted(shares) and shares[-1] == 1.0
    for step in range(STEPS):
        for repeat in range(1, REPEATS + 1):
            assert int((step + repeat / REPEATS) * PARTS + 1e-6) in ours
    # Within an evaluation, too: the first of a kind shows how many pieces of work there are.
    assert len(ours) > 2 * STEPS * REPEATS
    assert [value for value, total in bar if total == STEPS] == [1, 2]  # the host's own


def test_a_line_for_each_evaluation_and_one_a_step_in_the_log(specimen, caplog):
    lines, traces = [], []
    model = attach(specimen.patcher, conditions(), THRICE, None, traces.append, lines.append)
    with caplog.at_level(logging.INFO):
        sample(specimen, model, steps=STEPS)
    first = traces[0].steps[0]
    colors, likeness = (sum(values) / len(values) for values in first.energies)
    assert lines[0] == f"step 1/2: colors {colors:.3g}, likeness {likeness:.3g}"
    assert [line.split(":")[0] for line in lines] == ["step 1/2"] * 3 + ["step 2/2"] * 3
    logged = [text for text in caplog.messages if text.startswith("Z-Magic: step ")]
    assert logged == [f"Z-Magic: {lines[0]}", f"Z-Magic: {lines[REPEATS]}"]


def test_a_line_that_cannot_be_shown_ends_no_run(specimen):
    def fails(line):
        raise OSError("no connection")

    model = attach(specimen.patcher, conditions(), CHEAP, on_look=fails)
    plain = attach(specimen.patcher, conditions(), CHEAP)
    assert torch.equal(sample(specimen, model), sample(specimen, plain))


class Stops:
    """An energy during which the user cancels; counts how often it is asked."""

    def __init__(self):
        self.asked = 0

    def __call__(self, image, region=None):
        self.asked += 1
        comfy.model_management.interrupt_current_processing()
        return image.flatten(1).square().mean(1)


def test_cancelled_between_two_networks_and_nothing_is_left(specimen, caplog):
    before = sample(specimen, specimen.patcher)
    forwards = {name: module.forward for name, module in specimen.patcher.model.named_modules()}
    first, second = Stops(), Stops()
    lines = []
    conds = (Condition("first", first), Condition("second", second))
    model = attach(specimen.patcher, conds, CHEAP, on_look=lines.append)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(specimen, model)
    assert (first.asked, second.asked, lines) == (1, 0, [])
    assert not comfy.model_management.processing_interrupted()
    assert not comfy.model_management.in_training
    for name, module in specimen.patcher.model.named_modules():
        assert module.forward == forwards[name]
    assert KEY not in model.model_options and torch.equal(
        sample(specimen, specimen.patcher), before
    )


@pytest.mark.parametrize("node", [ZMagicSampler, ZMagicApply])
@pytest.mark.parametrize("end", ["finished", "cancelled"])
def test_the_node_shows_it(specimen, prompt_server, node, end):
    class Later(Stops):
        """Is cancelled in the second step."""

        def __call__(self, image, region=None):
            if end == "cancelled" and self.asked:
                return super().__call__(image, region)
            self.asked += 1
            return image.flatten(1).square().mean(1)

    conds = (Condition("Text", Later()),)
    settings = HostSettings(preset("balanced"), "linear_rgb")
    clone = in_graph(node, "7")
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    prompt = (specimen.positive, specimen.negative)

    def run():
        with torch.inference_mode(), one_thread():
            if node is ZMagicSampler:
                chosen = (3, STEPS, 3.0, "euler", "normal", 1.0)
                clone.execute(specimen.patcher, *prompt, latent, conds, *chosen, settings=settings)
                return
            (model,) = clone.execute(specimen.patcher, conds, settings).args
        sample(specimen, model, steps=STEPS)

    if end == "finished":
        run()
    else:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            run()
    shown = sent(prompt_server)
    assert {number for number, _, _ in shown} == {"7"}
    texts = [text for _, text, _ in shown]
    assert texts[0].startswith("step 1/2: Text ")
    if end == "cancelled":
        assert texts[-1].startswith("Stopped at step 1/2: Text ")
    else:
        assert texts[1].startswith("step 2/2: Text ")
