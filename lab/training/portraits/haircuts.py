"""Haircuts: what captions call them, how often they are worn, and their shapes."""

from dataclasses import dataclass

__all__ = ["CHANCES", "SHAPES", "STYLES", "Haircut"]

STYLES: dict[str, str] = {  # haircut -> the coarse style that a caption names
    "bald": "bald",
    "buzz": "short",
    "crop": "short",
    "swept": "short",
    "parted": "short",
    "curly": "short",
    "afro": "short",
    "bob": "medium",
    "waves": "medium",
    "bun": "medium",
    "straight": "long",
    "wavy": "long",
    "locks": "long",
}

# Chances of haircuts by gender; `people` changes them, and they are scaled to a sum of one.
CHANCES: dict[str, dict[str, float]] = {
    "man": {
        "bald": 0.13, "buzz": 0.16, "crop": 0.20, "swept": 0.15, "parted": 0.15, "curly": 0.08,
        "afro": 0.0, "waves": 0.04, "straight": 0.03, "wavy": 0.03, "locks": 0.01, "bun": 0.01,
    },
    "woman": {
        "bald": 0.015, "buzz": 0.02, "crop": 0.05, "swept": 0.04, "parted": 0.05, "curly": 0.07,
        "afro": 0.0, "bob": 0.17, "waves": 0.13, "bun": 0.11, "straight": 0.17, "wavy": 0.16,
        "locks": 0.01,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Haircut:
    """The shape of a haircut; lengths in metres.

    Args:
        flow: the direction in which the hair is combed: forward, back, part, out or gather.
        cap: thickness of the cap that closes the view to the scalp.
        volume: the locks lie up to this far above the cap.
        length: length of a lock; 0: down to the height `hem`.
        hem: below the middle between the eyes (negative).
        side_length: length of the locks on the sides; 0: like the others.
        count: number of locks.
        width: width of a lock.
        gravity: how strongly a lock is drawn down, against its own direction of length one.
        lift: how strongly it stands off at its root, in the same unit.
        curl: radius of the curls; 0: none.
        curl_length: along the lock, for one turn.
        disorder: standard deviation of the combing direction, in the same unit as `gravity`.
        fringe: chance that the front hair falls onto the forehead.
    """

    flow: str
    cap: float
    volume: float
    length: float
    hem: float = 0.0
    side_length: float = 0.0
    count: int = 1300
    width: float = 0.0055
    gravity: float = 0.25
    lift: float = 0.4
    curl: float = 0.0
    curl_length: float = 0.05
    disorder: float = 0.15
    fringe: float = 0.0


SHAPES: dict[str, Haircut] = {  # all but bald; found by looking at pictures
    "buzz": Haircut("forward", 0.0045, 0.0, 0.0, count=0),
    "crop": Haircut("forward", 0.0120, 0.006, 0.040, side_length=0.018, count=110, disorder=0.15,
                    width=0.030),
    "swept": Haircut("back", 0.0150, 0.008, 0.080, side_length=0.030, gravity=0.08, count=110,
                     width=0.032, disorder=0.08),
    "parted": Haircut("part", 0.0130, 0.008, 0.085, side_length=0.035, gravity=0.22, count=120,
                      width=0.032, disorder=0.08),
    "curly": Haircut("out", 0.0200, 0.008, 0.036, curl=0.006, curl_length=0.060, disorder=0.25,
                     side_length=0.032, count=170, width=0.030, gravity=0.4),
    "afro": Haircut("out", 0.0360, 0.0, 0.0, count=0),
    "bob": Haircut("part", 0.0130, 0.010, 0.0, hem=-0.095, count=190, lift=0.25, gravity=0.35,
                   fringe=0.45, width=0.036, disorder=0.06),
    "waves": Haircut("part", 0.0140, 0.011, 0.0, hem=-0.120, count=190, lift=0.3, gravity=0.35,
                     curl=0.008, curl_length=0.080, fringe=0.2, width=0.036, disorder=0.08),
    "bun": Haircut("gather", 0.0080, 0.003, 0.16, count=110, gravity=0.0, lift=0.1,
                   disorder=0.03, width=0.030),
    "straight": Haircut("part", 0.0130, 0.009, 0.0, hem=-0.27, count=210, lift=0.15,
                        gravity=0.50, fringe=0.35, disorder=0.05, width=0.036),
    "wavy": Haircut("part", 0.0140, 0.011, 0.0, hem=-0.25, count=210, lift=0.2, gravity=0.45,
                    curl=0.009, curl_length=0.090, fringe=0.15, width=0.038, disorder=0.06),
    "locks": Haircut("part", 0.0130, 0.010, 0.0, hem=-0.20, count=130, width=0.017, disorder=0.10),
}  # fmt: skip
