"""The denoiser as one guided evaluation sees it: its prediction of x itself is remembered."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

__all__ = ["Denoise", "Denoiser", "Model"]

Denoise = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Model:
    """The caller's denoiser, and what the caller knows of its last call; see ``predict``."""

    denoise: Denoise
    cfg_gap: Callable[[], Tensor | None] | None = None
    reused: Callable[[], bool] | None = None

    @property
    def was_reused(self) -> bool:
        """Whether the last call was answered without the model."""
        return self.reused is not None and self.reused()


class Denoiser:
    """The caller's denoiser during one evaluation: remembers its prediction of x itself."""

    def __init__(self, model: Model):
        self.first: Tensor | None = None  # the prediction of x; the others are look-aheads
        self.gap: Tensor | None = None
        self.reused_first = False
        self.is_counted = False  # whether the first one is among those without a gradient
        self._model = model

    def __call__(self, z: Tensor) -> Tensor:
        prediction = self._model.denoise(z)
        reused = self._model.was_reused
        if self.first is None:
            self.first = prediction.detach()
            self.gap = self._model.cfg_gap and self._model.cfg_gap()
            self.reused_first = reused
        # What comes from a cache depends on z, if at all, in another way than the model's answer.
        return prediction.detach() if reused else prediction
