"""Condition sets from portraits that no network was trained on.

Each set has two portraits: what the person is like comes from one, what the picture is like from
the other, so that the conditions have to be reconciled and nothing can be copied.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from zmagic.guidance.faces.crops import Faces
from zmagic.lab.training.data import read_portraits

__all__ = ["SPLITS", "ConditionSet", "Portrait", "condition_sets", "held_out"]

# Stage to the split whose people it sees: strengths are chosen on other people than they are
# measured on.
SPLITS = {"tune": "validation", "test": "test"}


@dataclass(frozen=True, eq=False)
class Portrait:
    """One held-out picture.

    Args:
        name: name of its file.
        identity: number of the person.
        picture: ``[1, 3, H, W]`` RGB in [0, 1].
        face: where the face is in it.
        caption: sentence that says what it shows.
    """

    name: str
    identity: int
    picture: Tensor
    face: Faces
    caption: str


@dataclass(frozen=True, eq=False)
class ConditionSet:
    """The conditions that one picture shall satisfy.

    Args:
        number: place of the set in its split, from 0.
        person: identity and text are taken from it.
        layout: shape, place, colors and style are taken from it; the new face is where its is.
        another: another portrait of the same person, None if there is none.
    """

    number: int
    person: Portrait
    layout: Portrait
    another: Portrait | None = None


def condition_sets(folder: Path, stage: str, count: int) -> list[ConditionSet]:
    """The first ``count`` sets of a stage: always the same for the same folder.

    Raises:
        ValueError: the folder holds too few portraits of that split.
    """
    portraits = held_out(folder, stage)
    if len(portraits) < count:
        raise ValueError(
            f"{folder} has {len(portraits)} portraits of the split {SPLITS[stage]}, expected "
            f"{count}; 'python -m lab.training.portraits' renders more"
        )
    return [
        ConditionSet(k, portraits[k], _partner(portraits, k), _another(portraits, k))
        for k in range(count)
    ]


def _partner(portraits: list[Portrait], k: int) -> Portrait:
    """Return the portrait half a round away, or the next one that shows another person."""
    after = k + len(portraits) // 2
    others = (portraits[place % len(portraits)] for place in range(after, after + len(portraits)))
    return next(other for other in others if other.identity != portraits[k].identity)


def _another(portraits: list[Portrait], k: int) -> Portrait | None:
    """Return the next portrait of the same person."""
    others = (portraits[place % len(portraits)] for place in range(k + 1, k + len(portraits)))
    return next((other for other in others if other.identity == portraits[k].identity), None)


@lru_cache(len(SPLITS))
def held_out(folder: Path, stage: str) -> list[Portrait]:
    """The portraits of a stage: one of each sitting of each person, then others of the sittings."""
    known = read_portraits(folder, SPLITS[stage])
    pictures = known.pictures()
    order = sorted(
        range(len(known)),
        key=lambda k: [known.labels[k][name] for name in ("coloring", "sitting", "identity")],
    )
    aspect = pictures.shape[-1] / pictures.shape[-2]
    return [
        Portrait(
            name=known.labels[k]["id"],
            identity=known.labels[k]["identity"],
            picture=pictures[k : k + 1],
            face=Faces.from_points(known.points[k : k + 1], aspect),
            caption=known.labels[k]["caption"],
        )
        for k in order
    ]
