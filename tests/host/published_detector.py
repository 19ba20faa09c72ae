"""A face detector with random weights in the file and layout of insightface's published packs.

Name, input and outputs are those of buffalo_l's SCRFD, so that whatever reads a real pack reads
this one. It finds a few "faces" in every picture, of the usual shape: where its random features are
strongest.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from zmagic.guidance.faces.crops import ARCFACE_BOX, ARCFACE_POINTS, ARCFACE_SIZE

# Strides of the three levels, anchors at each place, and the outputs: the library goes by their
# order, the published files have numbers for names.
STRIDES = (8, 16, 32)
ANCHORS = 2
OUTPUTS = tuple(f"{what}_{stride}" for what in ("score", "bbox", "kps") for stride in STRIDES)

# The level that finds the face, and the side of its aligned crop in that level's strides.
FINDING = 1
FACE_SIDE = 9.0

# Score of the strongest place before the sigmoid, how much less the weakest one has, and the score
# of all other levels.
PEAK, RANGE, SILENT = 2.0, 200.0, -6.0


def write_scrfd(
    folder: Path, pack: str = "buffalo_l", name: str = "det_10g.onnx", seed: int = 0
) -> Path:
    """Write the detector to ``insightface/models/<pack>/<name>`` below ``folder``."""
    path = folder / "insightface" / "models" / pack / name
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        RandomScrfd(seed).eval(),
        torch.zeros(1, 3, 640, 640),
        str(path),
        input_names=["input.1"],
        output_names=list(OUTPUTS),
        dynamic_axes={"input.1": {2: "?", 3: "?"}, **{output: {0: "?"} for output in OUTPUTS}},
        opset_version=11,
        dynamo=False,
    )
    return path


class RandomScrfd(nn.Module):
    """Picture ``[1, 3, H, W]`` to scores ``[N, 1]``, boxes ``[N, 4]`` and points ``[N, 10]``.

    Boxes are distances of the edges from the anchor's center in strides, points are offsets.
    """

    def __init__(self, seed: int):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._fill()

    def _fill(self) -> None:
        self.stem = nn.Sequential(*_halving(3, 8), *_halving(8, 16), *_halving(16, 16))
        self.deeper = nn.ModuleList(nn.Sequential(*_halving(16, 16)) for _ in STRIDES[1:])
        self.heads = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(16, ANCHORS * width, 1) for width in (1, 4, 10))
            for _ in STRIDES
        )
        self.register_buffer("edges", _edges())
        self.register_buffer("offsets", _offsets())

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        levels = [self.stem(picture)]
        for layer in self.deeper:
            levels.append(layer(levels[-1]))
        scores, boxes, points = zip(
            *(
                [_rows(head(x)) for head in heads]
                for heads, x in zip(self.heads, levels, strict=True)
            ),
            strict=True,
        )
        strengths = [
            _strongest(x) if level == FINDING else SILENT + 0.0 * x
            for level, x in enumerate(scores)
        ]
        return (
            *(torch.sigmoid(x) for x in strengths),
            *(self.edges + 0.05 * x for x in boxes),
            *(self.offsets + 0.05 * x for x in points),
        )


def _halving(channels: int, made: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(channels, made, 3, 2, 1, padding_mode="replicate"), nn.ReLU()


def _strongest(features: Tensor) -> Tensor:
    """Scores that are high where features are the strongest of the picture."""
    least, most = features.min(), features.max()
    return PEAK - RANGE * (most - features) / (most - least + 1e-6)


def _rows(maps: Tensor) -> Tensor:
    """``[1, A * K, h, w]`` to ``[h * w * A, K]``."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1] // ANCHORS)


def _offsets() -> Tensor:
    """The five points of an average face around the center of its crop, in strides, ``[10]``."""
    return ((torch.tensor(ARCFACE_POINTS) / ARCFACE_SIZE - 0.5) * FACE_SIDE).flatten()


def _edges() -> Tensor:
    """Return the distances of the box's edges from the center of the crop, in strides, ``[4]``."""
    return ((torch.tensor(ARCFACE_BOX) / ARCFACE_SIZE - 0.5) * FACE_SIDE).abs()
