"""Regions that follow the picture while it is made: something is looked for again and again.

A mask that is drawn before the sampling does not know where the model will put the dress. A live
region asks a finder, every few steps, where it is in the predicted picture; within a step it is
fixed, as all that a step follows (method section 1).
"""

import copy
import logging
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from .denoiser_gradient import is_out_of_memory
from .energy import networks_of
from .wording import numbered, printable

__all__ = ["LiveRegion", "RegionFinder"]

log = logging.getLogger(__name__)


class RegionFinder(Protocol):
    """Says where something is; it may have ``networks``, as an energy has.

    Attributes:
        sought: what it looks for, in words for reports.
    """

    sought: str

    def __call__(self, image: Tensor) -> Tensor:
        """Where it is in ``image [B, 3, H, W]``, RGB in [0, 1]: ``[B, H, W]`` in [0, 1], or 0."""
        ...


class LiveRegion:
    """The region of a condition that is looked for during a run; see Condition.

    One that was not begun by a run looks at every call. Until something is found in a picture the
    region is empty there, and its condition does not pull; later it stays where it was seen last.

    Args:
        finder: says where it is.
        every: the number of steps after which it is looked for again, >= 1; in a picture in which
            it was not seen at the last look, at every step.
        advice: what to do about a run in which it is not found, for its warning.

    Raises:
        ValueError: ``every`` is below 1.
    """

    def __init__(self, finder: RegionFinder, every: int = 3, advice: str = ""):
        if every < 1:
            raise ValueError(f"every must be >= 1, got {every}")
        self.finder = finder
        self.every = every
        self.advice = advice
        self._run: _Run | None = None

    @property
    def networks(self) -> tuple:
        """The networks that the finder runs on; see the Energy protocol."""
        return networks_of(self.finder)

    def begin_run(self) -> "LiveRegion":
        """The same region with fresh state, for one run; several conditions may share it."""
        region = copy.copy(self)
        region._run = _Run()
        return region

    def begin_step(self, step: int | None) -> None:
        """Begin a step: the next call is its first one; None: of the finished image."""
        if self._run is not None:
            self._run.step, self._run.current = step, None
            self._run.guided |= step is not None

    def at(self, image: Tensor) -> Tensor:
        """Where it is in ``image [B, 3, H, W]``: a constant ``[B, 1, H, W]`` like it."""
        run = self._run or _Run()
        # Outside inference mode, whoever asks first: what is seen is remembered for others.
        with torch.inference_mode(False), torch.no_grad():
            if run.current is None or len(run.current) != len(image):
                run.current = self._looked(image.detach(), run)
            return _fitted(run.current.to(image), image)

    @property
    def unseen(self) -> list[bool]:
        """In which pictures of the batch the last look did not find it; empty before a look."""
        return [] if self._run is None else [not there for there in self._run.there]

    @property
    def empty(self) -> list[bool]:
        """In which pictures of the batch no look found it yet, as ``unseen``."""
        return [] if self._run is None else list(self._run.empty)

    def due(self, pictures: int) -> int:
        """How many of so many pictures the next call looks at."""
        if self._run is None:
            return pictures
        run = self._run
        if run.current is not None and len(run.current) == pictures:
            return 0
        if run.seen is None or len(run.seen) != pictures or run.is_due(self.every):
            return pictures
        return sum(self.unseen)

    def notes(self) -> list[str]:
        """A sentence for a report: in how many looks of this run it was found."""
        if self._run is None or not self._run.looks:
            return []
        found, looks = sum(self._run.found), sum(self._run.looks)
        return [f"{self.finder.sought} was found in {found} of {looks} looks"]

    def warnings(self) -> list[str]:
        """Sentences that deserve a warning: pictures in which it was not found, or a failure."""
        if self._run is None:
            return []
        failed = [] if self._run.failure is None else [self._run.failure]
        without = [b for b, found in enumerate(self._run.found) if not found]
        if not without:
            return failed
        where = f"any of {sum(self._run.looks[b] for b in without)} looks"
        if len(without) < len(self._run.looks):
            where += f" at picture {numbered(without)} of {len(self._run.looks)}"
        said = f"{self.finder.sought} was not found"
        if self._run.guided:
            said += f" in {where}, so that the condition did not pull"
        return [*failed, f"{said}.\n{self.advice}" if self.advice else said]

    def _looked(self, image: Tensor, run: "_Run") -> Tensor:
        """The masks of this step ``[B, 1, H, W]``."""
        if run.seen is None or len(run.seen) != len(image):
            run.begin_batch(image)
        seen = run.seen_at(image)
        again = run.is_due(self.every)
        which = [b for b in range(len(image)) if again or not run.there[b]]
        if which:
            found = self._found(image[which], run)
            for b, mask in zip(which, found, strict=True):
                run.looks[b] += 1
                run.there[b] = bool(mask.any())
                run.found[b] += run.there[b]
                if run.there[b]:
                    seen[b], run.empty[b] = mask, False
        if again:  # at last: a look that runs out of memory is made again
            run.looked_at = run.step
        run.seen = seen
        return seen

    def _found(self, image: Tensor, run: "_Run") -> Tensor:
        try:
            return self.finder(image)[:, None].to(image)
        except Exception as error:  # whatever a network raises must not end the sampling
            if is_out_of_memory(error):
                raise
            if run.failure is None:
                run.failure = (
                    f"looking for {self.finder.sought} failed ({type(error).__name__}: "
                    f"{printable(str(error))}); guiding where it was last"
                )
                log.warning("Z-Magic: %s", run.failure)
            return torch.zeros_like(image[:, :1])


class _Run:
    """What one run has seen."""

    def __init__(self) -> None:
        self.step: int | None = None
        self.guided = False  # whether there was another step than that of the finished image
        self.current: Tensor | None = None  # this step's masks
        self.seen: Tensor | None = None  # where it was seen last, empty before
        self.looked_at: int | None = None  # the step of the last look at all images
        self.looks: list[int] = []  # at each image of the batch
        self.found: list[int] = []  # in how many of them it was there
        self.there: list[bool] = []  # whether it was in the last one of each image
        self.empty: list[bool] = []  # whether it was in none of them
        self.failure: str | None = None

    def begin_batch(self, image: Tensor) -> None:
        """Nothing was seen yet in any of ``image [B, 3, H, W]``."""
        self.seen = torch.zeros_like(image[:, :1])
        self.there, self.empty = [False] * len(image), [True] * len(image)
        missing = [0] * (len(image) - len(self.looks))
        self.looks += missing
        self.found += missing

    def seen_at(self, image: Tensor) -> Tensor:
        """A copy of what was seen, at the resolution of ``image``."""
        assert self.seen is not None
        return _fitted(self.seen, image).clone()

    def is_due(self, every: int) -> bool:
        """Whether all images are to be looked at."""
        if self.step is None or self.looked_at is None:
            return True
        return abs(self.step - self.looked_at) >= every


def _fitted(masks: Tensor, image: Tensor) -> Tensor:
    """Masks ``[B, 1, h, w]`` at the resolution of ``image [B, 3, H, W]``."""
    if masks.shape[-2:] == image.shape[-2:]:
        return masks
    return F.interpolate(masks, size=image.shape[-2:], mode="bilinear", antialias=True)
