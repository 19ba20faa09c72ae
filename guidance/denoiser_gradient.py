"""The gradient path of a run: through the denoiser as long as that has a gradient."""

from .settings import NO_BACKPROP

__all__ = ["DenoiserGradient"]

# The same two chains as `prediction` and `image`.
WITHOUT, IMAGE_WITHOUT = NO_BACKPROP
# How the error of a device without memory is called by PyTorch.
SHORT_OF_MEMORY = "OutOfMemoryError"


class DenoiserGradient:
    """The gradient path of a run, which loses the denoiser's Jacobian where there is none.

    Args:
        path: the gradient path that is wanted, see ``GuidanceSettings``.
        check: whether the gradient is to be compared with the slope of the prediction, once.
    """

    def __init__(self, path: str, check: bool):
        self.unchecked = check
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

    def lose(self, cause: str | None) -> str:
        """Go on without the Jacobian, and return a sentence that says why.

        Args:
            cause: what went wrong with gradients, for the whole run; None: one prediction came
                without, the next one may have it.
        """
        instead = f"guiding without the denoiser's Jacobian ({self.without_jacobian}) instead"
        if cause is None:
            return (
                f"the model's prediction carries no gradient (it was cached or detached); {instead}"
            )
        self._lost = True
        if cause.startswith(SHORT_OF_MEMORY):
            return (
                "not enough memory for the gradient: choose the preset 'fast', which needs none, "
                f"or a smaller latent; {instead}"
            )
        return (
            "the model cannot be differentiated here (a patch of it is the usual reason); "
            f"{instead}: {cause}"
        )
