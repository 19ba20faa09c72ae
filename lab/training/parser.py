"""Train the face parser.

    python -m lab.training.parser --data FOLDER [--evaluator]

The parser is a U-Net (Ronneberger et al., MICCAI 2015); the evaluator keeps one resolution and
widens its view by dilated convolutions (Yu and Koltun, ICLR 2016). Both say for each pixel of a
picture of 128 x 128 which of the eight classes of ``data.CLASSES`` it shows, as scores.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .data import CLASSES, Portraits, Variation, read_portraits, varied
from .layers import Convolution, Residual
from .metrics import confusion, intersection_over_union
from .onnx_export import write_onnx
from .running import EVALUATORS, read_command_line, read_weights
from .trainer import Trainer

MINUTES = 40.0
LEARNING_RATE = 2e-3
BATCH, SIDE = 8, 128
VARIATION = Variation(scale=0.2, shift=0.06, roll=0.15, light=0.2, gray=0.1)

# The scale of ImageNet, which the pack's loader of segmenters takes for granted.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

WIDTHS = (16, 32, 64, 128)
EVALUATOR_WIDTH, DILATIONS = 48, (1, 2, 4, 8, 1)


class Parser(nn.Module):
    """Normalized pictures ``[B, 3, H, W]`` to scores ``[B, 8, H, W]``, sides multiples of 8."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS):
        super().__init__()
        self.stem = nn.Sequential(Convolution(3, widths[0]), Convolution(widths[0], widths[0]))
        pairs = list(zip(widths, widths[1:], strict=False))
        self.down = nn.ModuleList(
            nn.Sequential(Convolution(i, o, stride=2), Residual(o)) for i, o in pairs
        )
        self.middle = Residual(widths[-1], dilation=2)
        self.up = nn.ModuleList(nn.ConvTranspose2d(o, i, 2, 2) for i, o in reversed(pairs))
        self.join = nn.ModuleList(
            nn.Sequential(Convolution(2 * i, i), Convolution(i, i)) for i, _ in reversed(pairs)
        )
        self.scores = nn.Conv2d(widths[0], len(CLASSES), 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        seen = []
        for down in self.down:
            seen.append(x)
            x = down(x)
        x = self.middle(x)
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat((up(x), seen.pop()), dim=1))
        return self.scores(x)


class ParserEvaluator(nn.Module):
    """The same task at half the resolution throughout; its scores are enlarged."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            Convolution(3, EVALUATOR_WIDTH, stride=2),
            *(Residual(EVALUATOR_WIDTH, dilation) for dilation in DILATIONS),
            nn.Conv2d(EVALUATOR_WIDTH, 4 * len(CLASSES), 1),
            nn.PixelShuffle(2),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def main() -> None:
    run = read_command_line("parser", __doc__, MINUTES, BATCH)
    train, held_out = read_portraits(run.data, "train"), read_portraits(run.data, "test")
    how = VARIATION.toward(run.evaluator)
    trainer = Trainer(
        run, run.started(ParserEvaluator() if run.evaluator else Parser()), LEARNING_RATE
    )
    weights = class_weights(train)
    network = trainer.train(lambda: loss(trainer.module, train, weights, run.batch, how))
    if run.evaluator:
        run.write_weights(network)
    else:
        write_onnx(run.file(".onnx"), network, SIDE, "scores")
    trainer.write_report(evaluated(network, held_out))


def load_evaluator() -> nn.Module:
    """The evaluator as it was trained; it takes pictures that ``normalized`` prepared."""
    return read_weights(ParserEvaluator(), EVALUATORS / "parser_evaluator.safetensors")


def normalized(pictures: Tensor) -> Tensor:
    """Pictures in [0, 1] on the scale that the parsers see, ImageNet's."""
    mean, std = (pictures.new_tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (pictures - mean) / std


def class_weights(portraits: Portraits) -> Tensor:
    """``[8]``, mean 1: lips, brows and eyes are a hundredth of a picture, and would be left out."""
    counts = torch.bincount(portraits.classes.flatten().int(), minlength=len(CLASSES))
    weights = counts.clamp(min=1).float().rsqrt()
    return weights / weights.mean()


def loss(
    network: nn.Module, portraits: Portraits, weights: Tensor, batch: int, how: Variation
) -> Tensor:
    """Weighted cross entropy, and the Dice overlap (Milletari et al., 3DV 2016)."""
    places = portraits.drawn(batch)
    pictures, _, classes = varied(
        portraits.pictures(places), how, classes=portraits.classes[places]
    )
    scores = network(normalized(pictures)).float()
    target = F.one_hot(classes.long(), len(CLASSES)).movedim(3, 1).float()
    chances = scores.softmax(1)
    overlap = (chances * target).sum((0, 2, 3))
    size = (chances + target).sum((0, 2, 3))
    return F.cross_entropy(scores, classes.long(), weights) + (1.0 - 2.0 * overlap / size).mean()


@torch.no_grad()
def evaluated(network: nn.Module, portraits: Portraits) -> dict:
    """Intersection over union on people it was not trained on."""
    counts = torch.zeros(len(CLASSES), len(CLASSES), dtype=torch.long)
    for places in torch.arange(len(portraits)).split(BATCH):
        scores = network(normalized(portraits.pictures(places)))
        counts += confusion(scores.argmax(1), portraits.classes[places], len(CLASSES))
    overlap = intersection_over_union(counts)
    return {
        "held-out pictures": len(portraits),
        "mean intersection over union": round(float(overlap.nanmean()), 4),
        "of each class": {
            name: round(float(value), 4) for name, value in zip(CLASSES, overlap, strict=True)
        },
    }


if __name__ == "__main__":
    main()
