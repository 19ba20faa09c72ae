"""CLIP models that were trained on which pictures people prefer: PickScore and HPSv2.

Their files hold a CLIP of a known architecture and say nothing else of it: the name tells which.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..guidance.networks.open_clip_towers import DEFAULTS
from .model_files import Source

__all__ = ["PREFERENCES", "Preference", "preference_of"]


@dataclass(frozen=True)
class Preference:
    """A published model of preferences.

    Attributes:
        name: its own.
        file: the name under which it should be kept, where the list of weights has it.
        mark: what is in the names of its files, or of the folder they are in, in plain letters.
        preprocessing: how it looks at pictures, in open_clip's words.
        source: where to get it.
    """

    name: str
    file: str
    mark: str
    preprocessing: dict[str, Any]
    source: Source


PREFERENCES = (
    Preference(
        "PickScore",
        "PickScore_v1.safetensors",
        "pickscore",
        DEFAULTS,
        Source(
            "https://huggingface.co/yuvalkirstain/PickScore_v1, model.safetensors, to be renamed; "
            "architecture ViT-H-14",
            "3.9 GB",
            "none is stated; the code is under MIT",
        ),
    ),
    Preference(
        "HPSv2",
        "HPS_v2.1_compressed.pt",
        "hpsv2",
        {**DEFAULTS, "resize_mode": "longest"},  # all of a picture, unlike the CLIP it began as
        Source(
            "https://huggingface.co/xswu/HPSv2, HPS_v2.1_compressed.pt; architecture ViT-H-14",
            "2.0 GB",
            "Apache 2.0",
        ),
    ),
)


def preference_of(path: Path) -> Preference | None:
    """The published model that a file of weights, or the folder it is in, is named after."""
    plain = re.sub("[^a-z0-9]", "", "".join(path.parts[-2:]).lower())
    return next((each for each in PREFERENCES if each.mark in plain), None)
