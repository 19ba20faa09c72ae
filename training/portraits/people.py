"""Who is in the picture: what stays with an identity and what changes from picture to picture.

Every draw comes from `numpy.random.default_rng([seed, identity])` or, for a picture, from
`default_rng([seed, identity, picture])`: a picture depends on these three numbers alone.
"""

from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]  # linear reflectance, red green blue

ANCESTRIES = ("african", "asian", "caucasian")  # anny's phenotype names
GREY_AGE = 0.86  # anny's age runs to 1.0 = old; from here a person counts as old

# Skin reflectances, darkest and lightest of each ancestry; the middle ones are the prototype's.
SKIN: dict[str, tuple[Colour, Colour]] = {
    "african": ((0.095, 0.050, 0.032), (0.300, 0.170, 0.105)),
    "asian": ((0.470, 0.290, 0.180), (0.700, 0.480, 0.350)),
    "caucasian": ((0.560, 0.350, 0.250), (0.760, 0.530, 0.430)),
}
HAIR: dict[str, Colour] = {
    "black": (0.014, 0.012, 0.011),
    "brown": (0.085, 0.042, 0.021),
    "blond": (0.480, 0.310, 0.130),
    "red": (0.300, 0.085, 0.028),
    "grey": (0.420, 0.415, 0.410),
}
HAIR_CHANCES = {  # in the order of HAIR without grey
    "african": (0.80, 0.18, 0.01, 0.01),
    "asian": (0.72, 0.24, 0.02, 0.02),
    "caucasian": (0.15, 0.37, 0.32, 0.16),
}
IRIS: dict[str, Colour] = {
    "brown": (0.075, 0.035, 0.015),
    "hazel": (0.160, 0.100, 0.035),
    "green": (0.120, 0.190, 0.080),
    "blue": (0.110, 0.220, 0.370),
    "grey": (0.210, 0.240, 0.260),
}
CLOTH: dict[str, Colour] = {
    "red": (0.460, 0.040, 0.045),
    "blue": (0.050, 0.110, 0.420),
    "green": (0.050, 0.270, 0.090),
    "white": (0.780, 0.770, 0.750),
    "black": (0.025, 0.025, 0.028),
    "yellow": (0.700, 0.460, 0.050),
    "pink": (0.690, 0.290, 0.370),
    "purple": (0.200, 0.070, 0.300),
    "grey": (0.260, 0.260, 0.270),
    "brown": (0.200, 0.110, 0.055),
}
BACKGROUND: dict[str, Colour] = {
    "grey": (0.330, 0.330, 0.340),
    "blue": (0.160, 0.290, 0.560),
    "green": (0.150, 0.380, 0.190),
    "beige": (0.640, 0.530, 0.390),
    "white": (0.820, 0.820, 0.810),
    "dark": (0.040, 0.042, 0.050),
    "pink": (0.640, 0.360, 0.380),
}
HAIRCUTS: dict[str, str] = {  # haircut -> the coarse style that a caption names
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
CUTS_OF = {  # chances by gender; 'afro' and 'locks' gain with African ancestry, see `_haircut`
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
BEARDS = ("stubble", "moustache", "goatee", "short", "full")
GARMENTS = ("crew", "scoop", "vneck", "boat", "turtleneck", "shirt", "jacket")
PATTERNS = ("plain", "stripes", "columns", "checks", "dots", "yoke")
GLASSES = ("round", "square", "oval")
HATS = ("beanie", "cap", "brim")
BACKDROPS = ("plain", "vertical", "diagonal", "halo", "bokeh", "wall")

# Expressions as anny's face units (ARKit names); the two numbers are the range of the strength.
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
EXPRESSION_CHANCES = (0.32, 0.27, 0.12, 0.07, 0.07, 0.05, 0.06, 0.04)
UNPAIRED_UNITS = ("jawOpen", "browInnerUp", "mouthPucker")

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
ASYMMETRY = 0.04


@dataclass(frozen=True)
class Identity:
    """What makes a person the same in every picture."""

    number: int
    gender: str
    race: str
    age: float
    phenotype: dict[str, float]
    shape: dict[str, float]
    skin: Colour
    lip_tint: float
    flush: float
    freckles: float
    marks_seed: int
    iris_name: str
    iris: Colour
    hair_name: str
    hair: Colour
    receding: float
    brow_thickness: float
    brow_arch: float
    brow_lift: float
    brow_reach: float

    @property
    def old(self) -> bool:
        return self.age > GREY_AGE


@dataclass(frozen=True)
class Sitting:
    """What changes from picture to picture."""

    picture: int
    expression: str
    units: dict[str, float]
    yaw: float
    pitch: float
    roll: float
    gaze: tuple[float, float]
    camera_yaw: float
    camera_lift: float
    zoom: float
    shift: tuple[float, float]
    haircut: str
    hair_seed: int
    beard: str
    make_up: float
    glasses: str
    hat: str
    hat_colour: str
    garment: str
    pattern: str
    cloth_colour: str
    second_colour: str
    backdrop: str
    background_colour: str
    light_side: float
    light_height: float
    light_size: float
    light_warmth: float
    contrast: float
    seed: int

    @property
    def smile(self) -> bool:
        return self.expression in ("smile", "laugh")


def jitter(rng: np.random.Generator, colour: Colour, amount: float) -> Colour:
    """The colour with its brightness and each channel changed by up to `amount` (a fraction)."""
    factor = rng.uniform(1.0 - amount, 1.0 + amount)
    channels = rng.uniform(1.0 - amount / 2, 1.0 + amount / 2, 3)
    red, green, blue = (float(c) for c in np.clip(np.array(colour) * factor * channels, 0.0, 0.9))
    return red, green, blue


def _choose(rng: np.random.Generator, options, chances=None) -> str:
    chances = None if chances is None else np.array(chances) / np.sum(chances)
    return str(rng.choice(list(options), p=chances))


def _spread(label: str) -> float:
    for prefix, spread in SHAPE_SPREADS.items():
        if label.startswith(prefix):
            return spread
    return SHAPE_SPREAD


def _shape(rng: np.random.Generator, labels: list[str]) -> dict[str, float]:
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


def draw_identity(
    seed: int, number: int, phenotype_labels: list[str], shape_labels: list[str]
) -> Identity:
    """The person with this number."""
    rng = np.random.default_rng([seed, number])
    gender = _choose(rng, ("man", "woman"))
    race = _choose(rng, ANCESTRIES)
    age = float(rng.uniform(0.63, 1.0))
    phenotype = {label: float(rng.uniform(0.3, 0.7)) for label in phenotype_labels}
    phenotype["gender"] = float(rng.uniform(0.0, 0.12))  # anny: 0 is male
    if gender == "woman":
        phenotype["gender"] = 1.0 - phenotype["gender"]
    phenotype["age"] = age
    phenotype["weight"] = float(rng.uniform(0.2, 0.8))
    others = rng.uniform(0.0, 0.25, len(ANCESTRIES))
    phenotype |= {k: float(share) for k, share in zip(ANCESTRIES, others, strict=True)}
    phenotype[race] = 1.0
    dark, light = (np.array(c) for c in SKIN[race])
    skin = dark + (light - dark) * rng.uniform()
    hair_name = _choose(rng, list(HAIR)[:4], HAIR_CHANCES[race])
    if age > GREY_AGE and rng.uniform() < 0.55:
        hair_name = "grey"
    iris_name = "brown" if race != "caucasian" else _choose(rng, IRIS)
    woman = gender == "woman"
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
        marks_seed=int(rng.integers(1 << 31)),
        iris_name=iris_name,
        iris=jitter(rng, IRIS[iris_name], 0.2),
        hair_name=hair_name,
        hair=jitter(rng, HAIR[hair_name], 0.25),
        receding=float(rng.uniform(0.2, 1.0)) if not woman and age > 0.78 else 0.0,
        brow_thickness=float(rng.uniform(0.65, 1.1) if woman else rng.uniform(0.85, 1.6)),
        brow_arch=float(rng.uniform(0.2, 1.3)),
        brow_lift=float(rng.uniform(-0.0020, 0.0030)),
        brow_reach=float(rng.uniform(0.046, 0.055)),
    )


def _haircut(rng: np.random.Generator, person: Identity) -> str:
    chances = dict(CUTS_OF[person.gender])
    if person.race == "african":
        chances["afro"] += 0.16
        chances["locks"] += 0.10
        chances["straight"] *= 0.4
    if person.receding > 0.6:
        chances["bald"] += 0.25
    return _choose(rng, chances, list(chances.values()))


def _units(rng: np.random.Generator, expression: str) -> dict[str, float]:
    units: dict[str, float] = {}
    for unit, (low, high) in EXPRESSIONS[expression].items():
        strength = float(rng.uniform(low, high))
        if unit in UNPAIRED_UNITS:
            units[unit] = strength
        else:
            units |= {unit + "Left": strength, unit + "Right": strength}
    return units


def draw_sitting(seed: int, person: Identity, picture: int) -> Sitting:
    """How this person sits for this picture."""
    rng = np.random.default_rng([seed, person.number, picture])
    expression = _choose(rng, EXPRESSIONS, EXPRESSION_CHANCES)
    man = person.gender == "man"
    beard = _choose(rng, BEARDS) if man and rng.uniform() < 0.45 else "none"
    cloth = _choose(rng, CLOTH)
    return Sitting(
        picture=picture,
        expression=expression,
        units=_units(rng, expression),
        yaw=float(np.clip(rng.normal(0.0, 0.18), -0.45, 0.45)),
        pitch=float(np.clip(rng.normal(0.0, 0.09), -0.22, 0.22)),
        roll=float(np.clip(rng.normal(0.0, 0.06), -0.18, 0.18)),
        gaze=(float(rng.normal(0.0, 0.08)), float(rng.normal(0.0, 0.04))),
        camera_yaw=float(np.clip(rng.normal(0.0, 0.10), -0.25, 0.25)),
        camera_lift=float(rng.uniform(-0.06, 0.08)),
        zoom=float(rng.uniform(0.93, 1.06)),
        shift=(float(rng.normal(0.0, 0.006)), float(rng.normal(0.0, 0.005))),
        haircut=_haircut(rng, person),
        hair_seed=int(rng.integers(1 << 31)),
        beard=beard,
        make_up=float(rng.uniform(0.3, 1.0)) if not man and rng.uniform() < 0.55 else 0.0,
        glasses=_choose(rng, GLASSES) if rng.uniform() < 0.15 else "none",
        hat=_choose(rng, HATS) if rng.uniform() < 0.10 else "none",
        hat_colour=_choose(rng, CLOTH),
        garment=_choose(rng, GARMENTS),
        pattern=_choose(rng, PATTERNS, (0.55, 0.13, 0.07, 0.09, 0.07, 0.09)),
        cloth_colour=cloth,
        second_colour=_choose(rng, [c for c in CLOTH if c != cloth]),
        backdrop=_choose(rng, BACKDROPS),
        background_colour=_choose(rng, BACKGROUND),
        light_side=float(rng.uniform(-1.0, 1.0)),
        light_height=float(rng.uniform(0.15, 0.9)),
        light_size=float(rng.uniform(0.25, 0.6)),
        light_warmth=float(rng.uniform(-1.0, 1.0)),
        contrast=float(rng.uniform(0.0, 1.0)),
        seed=int(rng.integers(1 << 31)),
    )


def caption(person: Identity, sitting: Sitting) -> str:
    """One English sentence that names what can be seen."""
    age = "an old" if person.old else "a young"
    style = HAIRCUTS[sitting.haircut]
    words = f"a photo of {age} {person.race} {person.gender}"
    if style == "bald":
        words += " with a bald head"
    else:
        words += f" with {style} {person.hair_name} hair"
    if sitting.beard in ("goatee", "short", "full"):
        words += " and a beard"
    elif sitting.beard != "none":
        words += f" and {'a ' if sitting.beard == 'moustache' else ''}{sitting.beard}"
    if sitting.glasses != "none":
        words += ", wearing glasses"
    if sitting.hat != "none":
        words += f", wearing a {sitting.hat_colour} hat"
    words += {
        "neutral": "", "smile": ", smiling", "laugh": ", laughing", "open mouth": ", mouth open",
        "surprise": ", surprised", "closed eyes": ", eyes closed", "frown": ", frowning",
        "pout": ", pouting",
    }[sitting.expression]  # fmt: skip
    return words + (f", wearing {sitting.cloth_colour}, {sitting.background_colour} background")
