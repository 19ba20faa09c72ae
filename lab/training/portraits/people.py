"""Who is in the picture: what stays with an identity and what changes from picture to picture."""

from dataclasses import dataclass

from . import expressions, haircuts
from .palette import Color

__all__ = ["COLORINGS", "Identity", "Sitting", "caption"]

COLORINGS = 4  # pictures of a sitting, which differ in their colors alone
GRAY_AGE = 0.86  # in anny's unit; from here a person counts as old
CALLED_BEARD = ("goatee", "short", "full")


@dataclass(frozen=True)
class Identity:
    """The features that make a person the same in every picture.

    Args:
        number: the person's number.
        gender: man or woman.
        race: the largest of anny's ANCESTRIES.
        age: in anny's unit, YOUNGEST to 1.
        phenotype: anny's body parameters, 0 to 1.
        shape: anny's local changes of the head, -1 to 1.
        skin, iris, hair: colors; `iris_name` and `hair_name` say which. That of the hair is the
            brows'; in a picture the hair may be dyed.
        lip_tint: strength of make-up on the lips, 0 to 1.
        flush: redness of cheeks and nose, 0 to 1.
        freckles: their strength, 0 to 1; 0 for most people.
        marks_seed: seed of the skin's spots.
        receding: how far the hair line lies back, 0 to 1.
        brow_thickness, brow_arch: factors.
        brow_lift, brow_reach: where the brows are, in meters above the usual height and from the
            middle of the face.
    """

    number: int
    gender: str
    race: str
    age: float
    phenotype: dict[str, float]
    shape: dict[str, float]
    skin: Color
    lip_tint: float
    flush: float
    freckles: float
    marks_seed: int
    iris_name: str
    iris: Color
    hair_name: str
    hair: Color
    receding: float
    brow_thickness: float
    brow_arch: float
    brow_lift: float
    brow_reach: float

    @property
    def old(self) -> bool:
        """Return whether the caption calls the person old; the others are young."""
        return self.age > GRAY_AGE


@dataclass(frozen=True)
class Sitting:
    """The features of a person that change from picture to picture.

    Args:
        picture: its number, of this person.
        expression: one of `expressions.EXPRESSIONS`; `units` are its face units.
        yaw, pitch, roll: angles of the head against the shoulders, in radians.
        gaze: angles of the eyes sideways and upwards, in radians, beside the head's direction.
        camera_yaw: radians around the person; `camera_lift`: metres above the face.
        zoom: factor; `shift`: of the picture's center to the side and up, metres.
        hair_name, hair: the color in this picture, of the head's hair and of a beard.
        haircut, beard, glasses, hat, garment: kinds; the middle three may be none.
        hair_seed: seed of haircut and beard; `color_seed`: of colors and background; `seed`: of
            everything else that is random.
        make_up: strength, 0 to 1.
        backdrop: kind of background.
        light_side: -1 to 1, from the picture's left to its right; `light_height`: 0 to 1.
        light_size: relative size of the key light; `light_warmth`: -1 to 1.
        contrast: 0 to 1, a strong key light with little fill.
    """

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
    hair_name: str
    hair: Color
    haircut: str
    hair_seed: int
    beard: str
    make_up: float
    glasses: str
    hat: str
    hat_color: str
    garment: str
    cloth_color: str
    backdrop: str
    background_color: str
    light_side: float
    light_height: float
    light_size: float
    light_warmth: float
    contrast: float
    color_seed: int
    seed: int

    @property
    def number(self) -> int:
        """The number of the sitting."""
        return self.picture // COLORINGS

    @property
    def coloring(self) -> int:
        """The number of the picture in its sitting."""
        return self.picture % COLORINGS

    @property
    def smile(self) -> bool:
        """Return whether the person smiles or laughs."""
        return self.expression in expressions.SMILES

    @property
    def style(self) -> str:
        """The haircut as the caption calls it: bald, short, medium or long."""
        return haircuts.STYLES[self.haircut]


def caption(person: Identity, sitting: Sitting) -> str:
    """One English sentence that names what can be seen."""
    age = "an old" if person.old else "a young"
    words = f"a photo of {age} {person.race} {person.gender}"
    if sitting.style == "bald":
        words += " with a bald head"
    else:
        words += f" with {sitting.style} {sitting.hair_name} hair"
    if sitting.beard in CALLED_BEARD:
        words += " and a beard"
    elif sitting.beard == "moustache":
        words += " and a moustache"
    elif sitting.beard == "stubble":
        words += " and stubble"
    if sitting.glasses != "none":
        words += ", wearing glasses"
    if sitting.hat != "none":
        words += f", wearing a {sitting.hat_color} hat"
    if sitting.expression != "neutral":
        words += f", {expressions.WORDS[sitting.expression]}"
    return words + f", wearing {sitting.cloth_color}, {sitting.background_color} background"
