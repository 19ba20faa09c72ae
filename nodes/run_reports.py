"""What nodes show of a run: its picture, its sentence and its warnings."""

import logging
from typing import Any

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..guidance.run_figure import run_figure
from ..guidance.trace import Trace
from ..guidance.wording import one_line
from .notices import say

__all__ = ["figure_of", "json_of", "report_outputs", "shown", "tell"]

log = logging.getLogger(__name__)


def report_outputs() -> list[io.Output]:
    """The two outputs of a report."""
    return [
        io.Image.Output(
            display_name="report",
            tooltip="How far each condition came, its energy over the steps, cosines between the "
            "conditions' gradients before and after dependence, size of the correction; the "
            "warnings.",
        ),
        io.String.Output(
            display_name="report_json",
            tooltip=(
                "The numbers of the report as JSON, with cost, warnings and notes, seed, model and "
                "versions, for scripts and Compare Z-Magic Runs."
            ),
        ),
    ]


def tell(node: type[io.ComfyNode], trace: Trace, before: str = "") -> None:
    """Show on the node what a run came to: its warnings, and a sentence.

    Args:
        node: the class that ComfyUI executes.
        trace: the record of the run.
        before: a sentence in front of it.
    """
    say(node, _text(trace, before))


def shown(trace: Trace, figure: Tensor, before: str = "") -> dict[str, Any]:
    """What ComfyUI shows in the node and keeps in the history: the figure, and the text.

    The text alone if the figure cannot be written: a picture that is done is not lost for its
    report.
    """
    text = {"text": (_text(trace, before),)}
    try:
        return {**ui.PreviewImage(figure).as_dict(), **text}
    except Exception:
        log.warning("Z-Magic: the report's picture could not be shown", exc_info=True)
        return text


def figure_of(trace: Trace) -> Tensor:
    """The report as a picture, ``[1, H, W, 3]``; a white pixel if it cannot be drawn."""
    try:
        return run_figure(trace.content())
    except Exception:  # the picture is done, and a plot is no reason to lose it
        log.warning("Z-Magic: the report could not be drawn", exc_info=True)
        return torch.ones(1, 1, 1, 3)


def json_of(trace: Trace) -> str:
    """The report as JSON; one that says no more than why, if it cannot be written."""
    try:
        return trace.to_json()
    except Exception as error:  # as above: an energy's own facts may be anything
        log.warning("Z-Magic: the report could not be written", exc_info=True)
        why = f"the report could not be written: {type(error).__name__}: {one_line(error)}"
        return Trace({}, warnings=[why, *trace.warnings]).to_json()


def _text(trace: Trace, before: str) -> str:
    # A narrow node shows the first two lines and scrolls: what asks to be mended comes first.
    return "\n\n".join(text for text in (before, *trace.warnings, _words(trace)) if text)


def _words(trace: Trace) -> str:
    try:
        return trace.words()
    except Exception:
        log.debug("the sentence could not be made", exc_info=True)
        return ""
