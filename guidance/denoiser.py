"""The denoiser as one guided evaluation sees it: what it said of x itself is remembered."""

from collections.abc import Callable

from torch import Tensor

__all__ = ["Denoise", "Denoiser"]

Denoise = Callable[[Tensor], Tensor]


class Denoiser:
    """The caller's denoiser during one evaluation: remembers what it said of x itself."""

    def __init__(self, denoise: Denoise, cfg_gap: Callable | None, reused: Callable | None):
        self.plain = denoise
        self.first: Tensor | None = None  # the prediction of x; the others are look-aheads
        self.gap: Tensor | None = None
        self.reused_first = False
        self._cfg_gap, self._reused = cfg_gap, reused

    @property
    def reused(self) -> bool:
        """Whether the last call was answered without the model."""
        return self._reused is not None and self._reused()

    def __call__(self, z: Tensor) -> Tensor:
        prediction = self.plain(z)
        reused = self.reused
        if self.first is None:
            self.first = prediction.detach()
            self.gap = self._cfg_gap and self._cfg_gap()
            self.reused_first = reused
        # What comes from a cache depends on z, if at all, in another way than the model's answer.
        return prediction.detach() if reused else prediction

    def again(self, z: Tensor) -> Tensor:
        """The prediction of x, computed only if it is not there."""
        return self(z) if self.first is None else self.first
