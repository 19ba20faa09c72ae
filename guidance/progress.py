"""How far a run is, told in front of every piece of its work, and what each evaluation saw."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .means import mean_in_words
from .trace import StepRecord

__all__ = ["Pace", "Watch", "look_line", "nothing"]


def nothing(*told: Any) -> None:
    """Do nothing with what is told."""


@dataclass(frozen=True)
class Watch:
    """What is told of a run while it goes on. Both are called often: they should be quick.

    Args:
        working: called in front of every piece of work (a network, the decoder, the model, or the
            gradient of one) with the sampler steps that are done, in fractions. What it raises
            ends the run there.
        looked: called after every evaluation with its record.
    """

    working: Callable[[float], None] = nothing
    looked: Callable[[StepRecord], None] = nothing


class Pace:
    """The share of its sampler step that a guided evaluation has done, by its pieces of work.

    Evaluations of a kind have as many pieces as the one before; the first is not divided.

    Args:
        working: see ``Watch``.
    """

    def __init__(self, working: Callable[[float], None]):
        self._working = working
        self._pieces: dict[Hashable, int] = {}

    @contextmanager
    def evaluation(
        self, kind: Hashable, step: int, repeat: int, repeats: int
    ) -> Iterator[Callable[[], None]]:
        """One guided evaluation; yields what is to be called in front of its pieces.

        Args:
            kind: evaluations of one kind are alike.
            step: the sampler steps that are done.
            repeat: the evaluations of this step that are done, of ``repeats``.
        """
        pieces = 0

        def before() -> None:
            nonlocal pieces
            known = self._pieces.get(kind)
            share = min(1.0, pieces / known) if known else 0.0
            self._working(step + (repeat + share) / repeats)
            pieces += 1

        yield before
        self._pieces[kind] = pieces
        self._working(step + (repeat + 1) / repeats)


def look_line(record: StepRecord, steps: int, step: str = "step") -> str:
    """One evaluation in words, ``step 4/12: Text 0.71, Face Identity 0.52``.

    Energies are those of the prediction before its correction, averaged over those pictures of the
    batch that have one. A solver may look at the end of its last step once more: that belongs to
    the step. A condition that is satisfied in all pictures is told to be.
    """
    done = record.satisfied or [[False]] * len(record.conditions)
    energies = zip(record.conditions, record.energies, done, strict=True)
    each = ", ".join(
        f"{name} {mean_in_words(values, 3)}{' (satisfied)' if all(is_done) else ''}"
        for name, values, is_done in energies
    )
    return f"{step} {min(record.step + 1, steps)}/{steps}: {each}"
