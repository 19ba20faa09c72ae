"""The protocol of attribute energies: differentiable functions of images, one value per sample."""

from typing import Protocol, runtime_checkable

from torch import Tensor

__all__ = ["Energy", "RandomEnergy", "RunEnergy", "networks_of"]


@runtime_checkable
class Energy(Protocol):
    """An attribute energy ``E(image) -> [B]``; lower means the attribute is better satisfied.

    An energy is created once, holds its encoded reference, and keeps no state between calls;
    one that has to follow a run is a ``RunEnergy``.
    It is a sum of squared or smoothed terms, twice differentiable almost everywhere: an
    un-squared norm has no curvature along its residual and is singular at zero
    (method section 8).

    One that asks for something at places of the whole picture (a layout, a drawing) says so by an
    attribute ``describes_places = True``: over a part of the picture it would be stretched.

    One that must not see a shifted or mirrored picture, though it does not describe places of it,
    names what by an attribute ``unfit_views``: landmarks know left from right, ``("flip",)``.

    One that evaluates another energy several times in one call has their number as ``calls``.

    One whose energy is known for a picture that is all that it asks for has it as ``goal``. A
    text has none: no picture's embedding is that of a sentence.

    One that runs networks names them by an attribute ``networks``, a tuple: whoever calls it must
    have them in memory by then. Without the attribute it runs none.
    """

    def __call__(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """Evaluate the energy.

        Args:
            image: ``[B, 3, H, W]`` RGB, nominally in [0, 1], float32 or float64. A decoder may
                overshoot the range slightly; an energy must stay finite there.
            region: ``[1 or B, 1, H, W]`` in [0, 1], or None for the whole image. The gradient must
                be 0 where the region is 0. An energy that runs no network must not depend on
                these pixels at all; a network may see what surrounds the region. Between 0 and 1 it
                is a weight: of the pixels, or of a network's gradient.

        Returns:
            ``[B]``, of the image's dtype and on its device: sample ``b`` depends on ``image[b]``
            alone.
        """
        ...


@runtime_checkable
class RunEnergy(Energy, Protocol):
    """An energy that follows a sampling run: where the face is, which crops are looked at.

    What it follows is fixed during a step, at all points at which the step evaluates it: the
    difference of two gradients is otherwise no Hessian product (method section 1).

    It may also have ``notes() -> list[str]`` and ``warnings() -> list[str]``, which are asked at
    the run's end: sentences about the run for its report, and those that deserve a warning. The
    condition's name is put in front of them.

    One that looks for a face has ``face_looks``, ``(with a face, all)`` of this run, or None;
    ``unseen``, in which pictures of the batch the last look found none (bool, empty before a look);
    and ``due(pictures) -> int``, at how many of so many pictures its next call looks.
    """

    def begin_run(self) -> "RunEnergy":
        """Return this energy with fresh state, for one run; the original stays as it is."""
        ...

    def begin_step(self, step: int | None) -> None:
        """Begin a step: the next evaluation is its first one; None: of the finished image."""
        ...


@runtime_checkable
class RandomEnergy(Energy, Protocol):
    """An energy that makes random choices for a step, such as where crops lie.

    They may depend on the seed alone: the run gives the same one wherever and however often the
    step is made, in a batch or alone, in one run or in a split one.
    """

    def draw_from(self, seed: int) -> None:
        """Take the seed of the coming step; comes before ``begin_step``."""
        ...


def networks_of(*parts: object) -> tuple:
    """The networks that energies, or parts of one such as a face locator, run on, each once.

    A part without an attribute ``networks`` runs none.
    """
    named = (network for part in parts for network in getattr(part, "networks", ()))
    return tuple(dict.fromkeys(named))
