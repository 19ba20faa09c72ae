"""The gradient path of a run: through the denoiser as long as it has a gradient and memory."""

from collections.abc import Callable

import torch

from .settings import NO_BACKPROP

__all__ = ["DenoiserGradient", "SaveMemory", "is_out_of_memory"]

# The same two chains as `prediction` and `image`.
WITHOUT, IMAGE_WITHOUT = NO_BACKPROP
# What the devices that raise a plain RuntimeError say (MPS, CUDA's late errors; the CPU).
OUT_OF_MEMORY = ("out of memory", "can't allocate memory")

SaveMemory = Callable[[], str | None]


def is_out_of_memory(error: Exception) -> bool:
    """Whether ``error`` says that a device has no memory left."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        sentence in str(error).lower() for sentence in OUT_OF_MEMORY
    )


class DenoiserGradient:
    """The gradient path of a run, which loses the denoiser's Jacobian where there is none.

    Args:
        path: the gradient path that is wanted, see ``GuidanceSettings``.
        check: whether the gradient is to be compared with the slope of the prediction, once.
        save_memory: see ``GuidedRun``; None: there is nothing to save.
    """

    def __init__(self, path: str, check: bool, save_memory: SaveMemory | None = None):
        self.unchecked = check
        self._save_memory = save_memory
        self._wanted = path
        self._lost = False  # the model cannot be differentiated in this run

    @property
    def path(self) -> str:
        """The gradient path of the next evaluation."""
        return self.without_jacobian if self._lost else self._wanted

    @property
    def without_jacobian(self) -> str:
        """The same chain with a scalar in place of the denoiser's Jacobian."""
        return IMAGE_WITHOUT if self._wanted.startswith("image") else WITHOUT

    @property
    def _instead(self) -> str:
        """What a sentence says that is done when the Jacobian is given up."""
        return f"guiding without the denoiser's Jacobian ({self.without_jacobian}) instead"

    def lose(self, cause: str | None) -> str:
        """Go on without the Jacobian, and return a sentence that says why.

        Args:
            cause: what went wrong with gradients, for the whole run; None: one prediction came
                without, the next one may have it.
        """
        if cause is None:
            return (
                "the model's prediction carries no gradient (it was cached or detached); "
                f"{self._instead}"
            )
        self._lost = True
        return (
            "the model cannot be differentiated here (a patch of it is the usual reason); "
            f"{self._instead}: {cause}"
        )

    def shrink(self, path: str) -> tuple[str, str] | None:
        """Take the next smaller way for the rest of the run, after ``path`` ran out of memory.

        Returns:
            The path to try and a sentence that says what is taken; None: there is no smaller one.
        """
        saved = self._save_memory and self._save_memory()
        if saved:
            return path, f"not enough memory for the gradient: {saved}"
        if path in NO_BACKPROP:
            return None
        self._lost = True
        return self.without_jacobian, (
            "not enough memory for the gradient: choose the preset 'fast', which needs none "
            "through the model, or a smaller latent; "
            f"{self._instead}"
        )
