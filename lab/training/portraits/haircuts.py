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
    "buzz": Haircut("forward", 0.0030, 0.001, 0.006, count=900, width=0.0035, disorder=0.6),
    "crop": Haircut("forward", 0.0080, 0.009, 0.034, side_length=0.014, disorder=0.28, lift=0.5,
                    width=0.0070),
    "swept": Haircut("back", 0.0100, 0.014, 0.075, side_length=0.020, gravity=0.08, lift=0.35,
                     width=0.0070),
    "parted": Haircut("part", 0.0090, 0.012, 0.085, side_length=0.025, gravity=0.22, lift=0.5,
                      width=0.0070),
    "curly": Haircut("out", 0.0110, 0.014, 0.070, curl=0.008, curl_length=0.035, disorder=0.6,
                     side_length=0.05, width=0.0060, gravity=0.25),
    "afro": Haircut("out", 0.0200, 0.012, 0.034, curl=0.006, curl_length=0.022, disorder=0.6,
                    count=1900, width=0.0065, gravity=0.0, lift=2.0),
    "bob": Haircut("part", 0.0090, 0.012, 0.0, hem=-0.095, count=1500, lift=0.25, gravity=0.35,
                   fringe=0.45, width=0.0070),
    "waves": Haircut("part", 0.0100, 0.013, 0.0, hem=-0.115, count=1500, lift=0.3, gravity=0.35,
                     curl=0.008, curl_length=0.075, fringe=0.2, width=0.0070),
    "bun": Haircut("gather", 0.0050, 0.004, 0.16, count=1100, gravity=0.0, lift=0.1,
                   disorder=0.05, width=0.0070),
    "straight": Haircut("part", 0.0090, 0.010, 0.0, hem=-0.27, count=1800, lift=0.15,
                        gravity=0.50, fringe=0.35, disorder=0.10, width=0.0070),
    "wavy": Haircut("part", 0.0100, 0.013, 0.0, hem=-0.25, count=1800, lift=0.2, gravity=0.45,
                    curl=0.009, curl_length=0.085, fringe=0.15, width=0.0070),
    "locks": Haircut("part", 0.0090, 0.016, 0.0, hem=-0.20, count=520, width=0.0100, curl=0.003,
                     curl_length=0.03, disorder=0.3),
}  # fmt: skip
