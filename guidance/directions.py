"""The directions of a run: by the best gradient path that there is a gradient and memory for."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from .denoiser import Denoiser, Model
from .denoiser_gradient import DenoiserGradient, SaveMemory, is_out_of_memory
from .direction import Decode, Direction, Look, balanced_direction
from .evaluation import DENOISER, ERRORS, NotDifferentiable
from .jacobian_check import PullBack, has_right_slope
from .operations import FORWARD, RunCost
from .run_report import RunReport
from .settings import NO_BACKPROP, GuidanceSettings

__all__ = ["Directions"]

log = logging.getLogger(__name__)


class Directions:
    """The directions of one run, which goes on without the denoiser's Jacobian where it must.

    Args:
        settings: the settings of the run.
        gradients, check_slope, save_memory: see ``GuidedRun``.
        cost: told when work is done in another way from then on.
        report: told what is given up.
    """

    def __init__(
        self,
        settings: GuidanceSettings,
        *,
        gradients: Callable[[], AbstractContextManager],
        check_slope: bool,
        save_memory: SaveMemory | None,
        cost: RunCost,
        report: RunReport,
    ):
        self._settings = settings
        self._gradients = gradients
        self._jacobian = DenoiserGradient(settings.gradient_path, check_slope, save_memory)
        self._cost, self._report = cost, report
        self.plain_predictions = 0  # those that the model made without a gradient

    @property
    def path(self) -> str:
        """The gradient path of the next evaluation."""
        return self._jacobian.path

    def behind(self, look: Look, denoiser: Denoiser, decode: Decode) -> Direction:
        """The direction at ``look.prediction``, without the denoiser."""
        return self._best(self._jacobian.without_jacobian, look, denoiser, decode)[1]

    def through(self, look: Look, denoiser: Denoiser, decode: Decode) -> tuple[str, Direction]:
        """The direction at ``look.x``, and the gradient path that it came by."""
        return self._best(self.path, look, denoiser, decode)

    def _best(
        self, path: str, look: Look, denoiser: Denoiser, decode: Decode
    ) -> tuple[str, Direction]:
        """The best from ``path`` on that there is a gradient and memory for."""
        while True:
            try:
                return path, self._by(path, look, denoiser, decode)
            except NotDifferentiable as stop:
                if stop.stage != DENOISER or path in NO_BACKPROP:
                    raise
                path, warning = self._jacobian.without_jacobian, self._jacobian.lose(stop.cause)
            except RuntimeError as error:
                smaller = self._jacobian.shrink(path) if is_out_of_memory(error) else None
                if smaller is None:
                    raise
                path, warning = smaller
                self._cost.change()
            # Out here the memory of the failed pass is free again.
            self._report.warn(warning)

    def _by(self, path: str, look: Look, denoiser: Denoiser, decode: Decode) -> Direction:
        """The balanced direction; the denoiser has gradients only where the path needs them."""
        if path in NO_BACKPROP and look.prediction is None:
            prediction = self._plain_prediction(look, denoiser)
            look = look.at(prediction.detach().clone())
        with self._gradients():
            return balanced_direction(look, denoiser, decode, self._settings, path)

    @torch.no_grad()
    def _plain_prediction(self, look: Look, denoiser: Denoiser) -> Tensor:
        """The denoiser's prediction of x, computed only if no failed try has left it."""
        if denoiser.first is None:
            once = look.meter.piece(DENOISER, times=0)
            with once, look.meter.running(DENOISER, FORWARD):
                denoiser(look.x)
        assert denoiser.first is not None
        if not denoiser.is_counted:  # a try that runs out of memory takes it again
            self.plain_predictions += not denoiser.reused_first
            denoiser.is_counted = True
        return denoiser.first

    def slope_is_right(self, pulled: PullBack | None, model: Model) -> bool:
        """Check once a run, after the first step with a gradient through the denoiser.

        Returns:
            False where the gradient was wrong: the run goes on without it.
        """
        if not self._jacobian.unchecked or pulled is None:
            return True
        counts = self._report.trace.extra_forwards

        def counted(x: Tensor) -> Tensor:
            counts[f"{DENOISER} check"] = counts.get(f"{DENOISER} check", 0) + 1
            return model.denoise(x)

        try:
            with self._gradients():  # where the prediction was made that it is compared with
                right = has_right_slope(pulled, counted)
        except ERRORS:  # of a node that cannot do without gradients here: it had them before
            log.debug("the slope could not be checked", exc_info=True)
            right = True
        if model.was_reused:  # a cache answered: the comparison does not show the model
            return True
        self._jacobian.unchecked = False
        if not right:
            self._report.warn(
                self._jacobian.lose("its gradient is not the slope of its prediction")
            )
        return right
