"""The host's denoiser during one guided prediction: evaluated several times, as if it were once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from comfy.patcher_extension import WrappersMP
from torch import Tensor

from .gradients import differentiable_options, normal
from .model_calls import ModelCalls
from .neighbor_state import NeighborState, lent

__all__ = ["CfgGap", "Evaluations", "prediction_of"]

WATCH = "zmagic_watch"  # the key of the wrapper that tells the calls of the model apart


class Evaluations:
    """The host's denoiser during one guided prediction.

    Other packs see one evaluation, the first: it runs on the run's own options. The later ones, at
    look-aheads and repeats, find the packs as that one found them, and leave no trace.
    """

    def __init__(
        self,
        executor: Callable,
        timestep: Tensor,
        model_options: dict,
        seed: int | None,
        calls: ModelCalls,
        gap: "CfgGap | None",
    ):
        self._executor, self._timestep, self._seed = executor, timestep, seed
        self._options, self._calls, self._gap = model_options, calls, gap
        self._before = self._state()
        self._first: Any = None
        self._differentiable = False
        self._now: NeighborState | None = None  # as the backward pass has to leave the packs

    @contextmanager
    def with_gradients(self, *, run_again: bool = False) -> Iterator[None]:
        """Make evaluations inside the block differentiable; outside they are the host's own.

        Args:
            run_again: whether parts of the model run again in the backward pass: for the packs
                they have not, at the end of the block.
        """
        before, self._differentiable = self._differentiable, True
        self._now = self._state() if run_again else None
        try:
            yield
        finally:
            self._differentiable = before
            if self._now is not None:
                self._now.restore()
                self._now = None

    def _state(self) -> NeighborState:
        return NeighborState(self._options, self._timestep.device)

    def __call__(self, z: Tensor) -> Tensor:
        if self._first is None:
            try:
                self._first = self._evaluated(z, self._options)
            except Exception:  # it is tried again without gradients: as if for the first time
                self._before.put_back(self._options)
                raise
            prediction = prediction_of(self._first)
            if self._now is not None:
                self._now = self._state()
        else:
            with self._before.again() as options:
                prediction = prediction_of(self._evaluated(z, options))
        return prediction.detach() if self._calls.detached else prediction

    def answer(self, prediction: Tensor) -> Any:
        """Return ``prediction`` in the form in which the first evaluation answered."""
        first = self._first
        if isinstance(first, Tensor):
            return prediction
        rest = [each.detach() if isinstance(each, Tensor) else each for each in first[1:]]
        if hasattr(first, "_fields"):  # a named tuple takes its fields one by one
            return type(first)(prediction, *rest)
        return type(first)([prediction, *rest])

    def _evaluated(self, z: Tensor, options: dict) -> Any:
        timestep, changed = self._timestep, dict(options)
        changed["transformer_options"] = dict(options.get("transformer_options", {}))
        if self._differentiable:
            timestep, changed = normal(timestep), differentiable_options(options)
        if self._gap is not None:
            key = "sampler_post_cfg_function"
            changed[key] = [*changed.get(key, ()), self._gap.after_cfg]
        wrappers = changed["transformer_options"]["wrappers"] = {
            **changed["transformer_options"].get("wrappers", {})
        }
        wrappers[WrappersMP.APPLY_MODEL] = {
            **wrappers.get(WrappersMP.APPLY_MODEL, {}),
            WATCH: [lambda *args, **kwargs: self._calls.asked(*args, **kwargs)],
        }
        with lent(options, changed), self._calls.evaluation(with_gradients=z.requires_grad):
            # A copy: what is behind may write into its input, which is a leaf here.
            return self._executor(z.clone(), timestep, options, self._seed)


def prediction_of(answer: Any) -> Tensor:
    """Take the prediction out of what an executor returned.

    Raises:
        TypeError: it is neither a tensor nor several of which the first is one.
    """
    if isinstance(answer, list | tuple) and answer and isinstance(answer[0], Tensor):
        return answer[0]
    if not isinstance(answer, Tensor):
        raise TypeError(
            "Z-Magic cannot guide this model together with another node that replaces the "
            "prediction: expected a tensor, or a tuple that begins with one, got "
            f"{type(answer).__name__}"
        )
    return answer


class CfgGap:
    """Remembers ``cfg * (D_cond - D_uncond)`` of the last prediction."""

    def __init__(self):
        self.value: Tensor | None = None

        def after_cfg(args: dict) -> Tensor:
            uncond = args["uncond_denoised"]
            self.value = None
            if uncond is not None:  # cfg 1 skips the unconditional prediction
                gap = args["cond_denoised"] - uncond
                self.value = (args["cond_scale"] * gap).detach()
            return args["denoised"]

        self.after_cfg = after_cfg  # a function: a deep copy of the options still reports here

    def __call__(self) -> Tensor | None:
        return self.value
