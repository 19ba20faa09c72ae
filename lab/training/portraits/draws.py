"""Random people and sittings.

Every draw comes from `numpy.random.default_rng([seed, identity])`, for a sitting from
`default_rng([seed, identity, sitting + 1])`, and for the colors of one of its pictures from
`default_rng([seed, identity, sitting + 1, coloring + 1])`: a picture depends on these numbers
alone. (With numpy, which fills seeds up with zeros, sitting 0 would else repeat the numbers of its
person.) The order of the draws is part of the result.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from . import expressions, haircuts
from .palette import BACKGROUND, CLOTH, HAIR, IRIS, SKIN, jitter
from .people import COLORINGS, GRAY_AGE, Identity, Sitting

__all__ = ["draw_identity", "draw_sitting"]

ANCESTRIES = ("african", "asian", "caucasian")  # anny's phenotype names
YOUNGEST = 0.63  # anny's age runs from 0 to 1 = old; 2/3 is a young adult
RECEDING_AGE = 0.78
HAIR_CHANCES = {  # in the order of HAIR without gray, which comes with age
    "african": (0.80, 0.18, 0.01, 0.01),
    "asian": (0.72, 0.24, 0.02, 0.02),
    "caucasian": (0.15, 0.37, 0.32, 0.16),
}
BEARDS = ("stubble", "moustache", "goatee", "short", "full")
GARMENTS = ("crew", "scoop", "vneck", "boat", "turtleneck", "shirt", "jacket")
NATURAL = 0.4  # share of the pictures in which hair has the color of the brows
GLASSES = ("round", "square", "oval")
HATS = ("beanie", "cap", "brim")
BACKDROPS = ("plain", "vertical", "diagonal", "halo")
SEEDS = 1 << 31

# Spread of the shape parameters (anny accepts -1 to 1). The exceptions are those that move more
# than about 15 mm or move a part sideways at full strength.
SHAPE_SPREAD = 0.44
SHAPE_LIMIT = 0.95
SHAPE_SPREADS = {
    "forehead-nubian": 0.06, "forehead-scale-vert": 0.10, "forehead-trans": 0.15,
    "head-trans": 0.06, "head-scale": 0.22, "head-angle": 0.15, "head-back": 0.20,
    "head-age": 0.20, "chin-height": 0.25, "mouth-trans-out": 0.08, "nose-trans-out": 0.08,
    "eyebrows-trans-forward": 0.15, "mouth-trans-up": 0.25, "l-ear-wing": 0.25,
    "l-eye-height": 0.20, "l-eye-push": 0.20,
}  # fmt: skip
EYE_OPENING = 0.28  # mean of eye height and size: the iris is visible at 128 pixels
ASYMMETRY = 0.04  # standard deviation of the right side from the left


def draw_identity(
    seed: int, number: int, phenotype_labels: Sequence[str], shape_labels: Sequence[str]
) -> Identity:
    """The person with this number, with a value for each of anny's labels."""
    rng = np.random.default_rng([seed, number])
    gender = _choose(rng, ("man", "woman"))
    race = _choose(rng, ANCESTRIES)
    age = float(rng.uniform(YOUNGEST, 1.0))
    woman = gender == "woman"
    phenotype = _phenotype(rng, phenotype_labels, woman, race, age)
    dark, light = (np.array(c) for c in SKIN[race])
    skin = dark + (light - dark) * rng.uniform()
    hair_name = _choose(rng, list(HAIR)[:4], HAIR_CHANCES[race])
    if age > GRAY_AGE and rng.uniform() < 0.55:
        hair_name = "grey"
    iris_name = "brown" if race != "caucasian" else _choose(rng, IRIS)
    return Identity(
        number=number,
        gender=gender,
        race=race,
        age=age,
        phenotype=phenotype,
        shape=_shape(rng, shape_labels),
        skin=jitter(rng, tuple(skin), 0.06),
        lip_tint=float(rng.uniform(0.35, 0.75)),
        flush=float(rng.uniform(0.1, 0.6)),
        freckles=float(rng.uniform(0.3, 0.8)) if rng.uniform() < 0.15 else 0.0,
        marks_seed=int(rng.integers(SEEDS)),
        iris_name=iris_name,
        iris=jitter(rng, IRIS[iris_name], 0.2),
        hair_name=hair_name,
        hair=jitter(rng, HAIR[hair_name], 0.12),
        receding=float(rng.uniform(0.2, 1.0)) if not woman and age > RECEDING_AGE else 0.0,
        brow_thickness=float(rng.uniform(0.65, 1.1) if woman else rng.uniform(0.85, 1.6)),
        brow_arch=float(rng.uniform(0.2, 1.3)),
        brow_lift=float(rng.uniform(-0.0020, 0.0030)),
        brow_reach=float(rng.uniform(0.046, 0.055)),
    )


def draw_sitting(seed: int, person: Identity, picture: int) -> Sitting:
    """Draw how this person sits for this picture: several in a row differ in their colors alone."""
    sitting, coloring = divmod(picture, COLORINGS)
    rng = np.random.default_rng([seed, person.number, sitting + 1])
    colors = np.random.default_rng([seed, person.number, sitting + 1, coloring + 1])
    expression = _choose(rng, expressions.EXPRESSIONS, expressions.CHANCES)
    man = person.gender == "man"
    beard = _choose(rng, BEARDS) if man and rng.uniform() < 0.45 else "none"
    haircut = _haircut(rng, person)
    hair_name, hair = person.hair_name, person.hair
    if haircut != "bald" and colors.uniform() > NATURAL:
        hair_name = _choose(colors, HAIR)
        hair = jitter(colors, HAIR[hair_name], 0.12)
    return Sitting(
        picture=picture,
        expression=expression,
        units=expressions.draw_units(rng, expression),
        yaw=_near_zero(rng, 0.15, 0.40),
        pitch=_near_zero(rng, 0.06, 0.15),
        roll=_near_zero(rng, 0.04, 0.12),
        gaze=(float(rng.normal(0.0, 0.08)), float(rng.normal(0.0, 0.04))),
        camera_yaw=_near_zero(rng, 0.10, 0.25),
        camera_lift=float(rng.uniform(-0.06, 0.08)),
        zoom=float(rng.uniform(0.93, 1.06)),
        shift=(float(rng.normal(0.0, 0.006)), float(rng.normal(0.0, 0.005))),
        hair_name=hair_name,
        hair=hair,
        haircut=haircut,
        hair_seed=int(rng.integers(SEEDS)),
        beard=beard,
        make_up=float(rng.uniform(0.3, 1.0)) if not man and rng.uniform() < 0.55 else 0.0,
        glasses=_choose(rng, GLASSES) if rng.uniform() < 0.20 else "none",
        hat=_choose(rng, HATS) if rng.uniform() < 0.12 else "none",
        hat_color=_choose(colors, CLOTH),
        garment=_choose(rng, GARMENTS),
        cloth_color=_choose(colors, CLOTH),
        backdrop=_choose(colors, BACKDROPS),
        background_color=_choose(colors, BACKGROUND),
        light_side=float(rng.uniform(-0.8, 0.8)),
        light_height=float(rng.uniform(0.15, 0.9)),
        light_size=float(rng.uniform(0.5, 0.9)),
        light_warmth=float(rng.uniform(-1.0, 1.0)),
        contrast=float(rng.uniform(0.0, 0.5)),
        color_seed=int(colors.integers(SEEDS)),
        seed=int(rng.integers(SEEDS)),
    )


def _choose(
    rng: np.random.Generator, options: Iterable[str], chances: Sequence[float] | None = None
) -> str:
    """One of the options; `chances` need not sum to one."""
    shares = None if chances is None else np.array(chances) / np.sum(chances)
    return str(rng.choice(list(options), p=shares))


def _near_zero(rng: np.random.Generator, spread: float, limit: float) -> float:
    """A normal number of this standard deviation, cut at +-`limit`."""
    return float(np.clip(rng.normal(0.0, spread), -limit, limit))


def _phenotype(
    rng: np.random.Generator, labels: Sequence[str], woman: bool, race: str, age: float
) -> dict[str, float]:
    phenotype = {label: float(rng.uniform(0.3, 0.7)) for label in labels}
    phenotype["gender"] = float(rng.uniform(0.0, 0.12))  # anny: 0 is male
    if woman:
        phenotype["gender"] = 1.0 - phenotype["gender"]
    phenotype["age"] = age
    phenotype["weight"] = float(rng.uniform(0.2, 0.8))
    others = rng.uniform(0.0, 0.25, len(ANCESTRIES))
    phenotype |= {k: float(share) for k, share in zip(ANCESTRIES, others, strict=True)}
    phenotype[race] = 1.0
    return phenotype


def _shape(rng: np.random.Generator, labels: Sequence[str]) -> dict[str, float]:
    """Values of the local changes; the right half of a pair is drawn near the left one."""
    shape: dict[str, float] = {}
    for label in labels:
        if label.startswith("r-"):
            continue
        mean = EYE_OPENING if label.startswith(("l-eye-height", "l-eye-scale")) else 0.0
        value = rng.normal(mean, _spread(label))
        shape[label] = float(np.clip(value, -SHAPE_LIMIT, SHAPE_LIMIT))
        if label.startswith("l-"):
            other = value + rng.normal(0.0, ASYMMETRY)
            shape["r-" + label[2:]] = float(np.clip(other, -SHAPE_LIMIT, SHAPE_LIMIT))
    return shape


def _spread(label: str) -> float:
    for prefix, spread in SHAPE_SPREADS.items():
        if label.startswith(prefix):
            return spread
    return SHAPE_SPREAD


def _haircut(rng: np.random.Generator, person: Identity) -> str:
    chances = dict(haircuts.CHANCES[person.gender])
    if person.race == "african":
        chances["afro"] += 0.16
        chances["locks"] += 0.10
        chances["straight"] *= 0.4
    if person.receding > 0.6:
        chances["bald"] += 0.25
    return _choose(rng, chances, list(chances.values()))
