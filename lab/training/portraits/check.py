"""Ask networks that were trained on photographs whether the synthetic portraits are faces.

    python -m lab.training.portraits.check --data FOLDER

A face recognizer verifies people (every pair of pictures), dlib's detector looks for faces, and the
labels are compared with the masks. Needs what 'make test' sets up; a minute for 100 people.
"""

import json
from pathlib import Path

import torch
from torch import Tensor

from zmagic.guidance.networks import load_onnx
from zmagic.guidance.pictures.preprocessing import Preprocessing
from zmagic.lab.evaluators.dlib_faces import shows_face

from ...command_line import described
from ..data import CLASSES, Portraits, read_portraits
from ..recognizer import evaluated

__all__ = ["checked"]

# What setup fetches for the tests, and what the network's own package subtracts and divides by.
RECOGNIZER = Path(__file__).parents[3] / ".host" / "networks" / "face" / "fr_feature.onnx"
INPUT = Preprocessing((112, 112), (127.0 / 255.0,), (128.0 / 255.0,))

# Sides of the picture around a landmark in which its class must be found.
NEAR = 2.0 / 128.0


def main() -> None:
    parser = described("training.portraits.check", __doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="Folder that lab.training.portraits wrote."
    )
    parser.add_argument(
        "--split",
        default="test",
        choices=("train", "validation", "test"),
        help="Whose portraits are looked at. Default: %(default)s.",
    )
    parser.add_argument(
        "--recognizer",
        type=Path,
        default=RECOGNIZER,
        help="ONNX file of a face recognizer that takes aligned crops of 112 x 112 pixels. "
        "Default: the one that 'make test' fetches.",
    )
    parser.add_argument(
        "--threads", type=int, default=2, help="CPU threads of PyTorch. Default: %(default)s."
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    portraits = read_portraits(options.data, options.split)
    print(json.dumps(checked(portraits, options.recognizer), indent=2))


@torch.no_grad()
def checked(portraits: Portraits, recognizer: Path) -> dict:
    """Figures of the portraits; `recognizer` is an ONNX file that takes ArcFace's crops."""
    network = load_onnx(recognizer)

    def embedding(crops: Tensor) -> Tensor:
        """Embeddings of crops whose pixels run from -1 to 1, as our own recognizers see them."""
        return network(INPUT.normalized((crops + 1.0) / 2.0))[0]

    found = [shows_face(picture) for picture in portraits.pictures()]
    return {
        **evaluated(embedding, portraits),
        "faces found by dlib": round(sum(found) / len(found), 4),
        "eyes where the mask has them": _beside(portraits, slice(0, 2), "eyes"),
        "mouth corners where the mask has lips": _beside(portraits, slice(3, 5), "lips"),
    }


def _beside(portraits: Portraits, points: slice, name: str) -> float:
    """Share of the landmarks that have a pixel of this class near them."""
    *_, height, width = portraits.classes.shape
    row = (torch.arange(height) + 0.5) / height
    column = (torch.arange(width) + 0.5) / width
    near = []
    for classes, landmarks in zip(portraits.classes, portraits.points[:, points], strict=True):
        for x, y in landmarks:
            around = (row[:, None] - y).hypot(column[None] - x) <= NEAR
            near.append(bool((classes[around] == CLASSES.index(name)).any()))
    return round(sum(near) / len(near), 4)


if __name__ == "__main__":
    main()
