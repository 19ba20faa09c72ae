"""What the host shows of a run while it goes on: its progress bar, a line of text, the log."""

import logging
from collections.abc import Callable, Sequence

from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.utils import ProgressBar

from ..guidance.progress import Watch, look_line
from ..guidance.trace import StepRecord

__all__ = ["RunProgress"]

log = logging.getLogger(__name__)

# A sampler step has so many parts on the host's bar, whose numbers are whole ones. The host's own
# bar of the sampling is at the same place after every step.
PARTS = 20


class RunProgress:
    """The progress of one run.

    Args:
        steps: the sampler steps of the run.
        listeners: each is told a line of text after every evaluation.
        step: what a line calls one of them.
    """

    def __init__(
        self, steps: int, listeners: Sequence[Callable[[str], None]] = (), step: str = "step"
    ):
        self._steps, self._step = steps, step
        self._listeners = listeners
        self._bar = ProgressBar(steps * PARTS)
        self._reached = 0
        self._logged = -1  # the last step that has its line in the log
        self._line = ""

    @property
    def watch(self) -> Watch:
        """What the engine tells of its run."""
        return Watch(self._working, self._looked)

    def stopped(self) -> None:
        """Say that the run ended before its end: a line that is shown would stay otherwise."""
        if self._line:
            self._tell(f"Stopped at {self._line}")

    def _working(self, done: float) -> None:
        """Move the bar; end the run if the user asked for it.

        Raises:
            InterruptProcessingException: the user cancels.
        """
        throw_exception_if_processing_interrupted()
        reached = int(done * PARTS + 1e-6)
        if reached > self._reached:  # a solver may look back at an earlier step
            self._reached = reached
            self._bar.update_absolute(reached)

    def _looked(self, record: StepRecord) -> None:
        self._line = look_line(record, self._steps, self._step)
        if record.step != self._logged:
            self._logged = record.step
            log.info("Z-Magic: %s", self._line)
        self._tell(self._line)

    def _tell(self, line: str) -> None:
        for tell in self._listeners:
            try:
                tell(line)
            except Exception:  # what shows a line must not end the sampling
                log.debug("a line could not be shown", exc_info=True)
