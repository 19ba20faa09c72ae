"""Train the landmark network.

    python -m lab.training.landmarks --data FOLDER [--evaluator]

Both networks see the box of a face, stretched to 96 x 96 pixels, and find iBUG's 68 points in it,
in fractions of the box. The regressor takes the mean place of a heat map for each point (Sun et
al., "Integral Human Pose Regression", ECCV 2018), which is differentiable and finer than the map's
cells; the evaluator, a MobileNetV3 (Howard et al., ICCV 2019), regresses the numbers directly.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zmagic.guidance.faces.crops import Faces, box_crops
from zmagic.guidance.faces.points import five_points

from .data import Portraits, Variation, read_portraits, varied
from .layers import Convolution, Residual
from .metrics import interocular_error
from .onnx_export import write_onnx
from .running import EVALUATORS, read_command_line, read_weights
from .trainer import Trainer

MINUTES = 40.0
LEARNING_RATE = 1e-3
BATCH, SIDE, POINTS = 32, 96, 68
VARIATION = Variation(roll=0.15, light=0.2, gray=0.1)

# How far a box is from the one that fits, in its sides: detectors are no better.
BOX_SHIFT, BOX_SCALE = 0.06, 0.12

# Cells of the heat maps in the box and beyond each of its edges: the jaw may leave the box.
CELLS, BEYOND = 24, 4
WIDTHS = (32, 64, 128)

# Beyond this distance, in sides of the box, an error counts linearly.
LINEAR_FROM = 0.01


class LandmarkNetwork(nn.Module):
    """Crops ``[B, 3, 96, 96]`` in [0, 1] to x and y of each point, ``[B, 136]``."""

    def __init__(self):
        super().__init__()
        stem, fine, coarse = WIDTHS
        self.fine = nn.Sequential(
            Convolution(3, stem, stride=2), Convolution(stem, fine, stride=2), Residual(fine)
        )
        self.coarse = nn.Sequential(
            Convolution(fine, coarse, stride=2), Residual(coarse), Residual(coarse, dilation=2)
        )
        self.up = nn.ConvTranspose2d(coarse, fine, 2, 2)
        self.heat = nn.Sequential(
            nn.Conv2d(fine, fine, 3, padding=1 + BEYOND),
            Residual(fine),
            Residual(fine),
            nn.Conv2d(fine, POINTS, 1),
        )
        side = CELLS + 2 * BEYOND
        centers = (torch.arange(side) - BEYOND + 0.5) / CELLS
        places = torch.stack(torch.meshgrid(centers, centers, indexing="xy"), dim=-1)
        self.register_buffer("places", places.flatten(0, 1), persistent=False)  # [cells, 2]

    def forward(self, x: Tensor) -> Tensor:
        x = self.fine(x)
        heat = self.heat(x + self.up(self.coarse(x)))
        chances = heat.flatten(2).float().softmax(2)  # [B, P, cells]
        return (chances @ self.places).flatten(1)


class LandmarkEvaluator(nn.Module):
    """The same numbers by a classifier's network."""

    def __init__(self):
        super().__init__()
        import timm  # open_clip brings it

        self.network = timm.create_model("mobilenetv3_small_100", num_classes=2 * POINTS)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x * 2.0 - 1.0) + 0.5


def main() -> None:
    run = read_command_line("landmarks", __doc__, MINUTES, BATCH)
    train, held_out = read_portraits(run.data, "train"), read_portraits(run.data, "test")
    how = VARIATION.toward(run.evaluator)
    trainer = Trainer(
        run, run.started(LandmarkEvaluator() if run.evaluator else LandmarkNetwork()), LEARNING_RATE
    )
    network = trainer.train(lambda: loss(trainer.module, train, run.batch, how))
    if run.evaluator:
        run.write_weights(network)
    else:
        write_onnx(run.file(".onnx"), network, SIDE, "points")
    trainer.write_report(evaluated(network, held_out))


def load_evaluator() -> nn.Module:
    """The evaluator as it was trained; it takes crops that ``box_crops`` makes."""
    return read_weights(LandmarkEvaluator(), EVALUATORS / "landmarks_evaluator.safetensors")


def loss(network: nn.Module, portraits: Portraits, batch: int, how: Variation) -> Tensor:
    """Smoothed distance in a random batch."""
    places = portraits.drawn(batch)
    pictures, points, _ = varied(portraits.pictures(places), how, portraits.points68[places])
    crops, back = faces_in_boxes(pictures, points, BOX_SHIFT, BOX_SCALE)
    inverse = torch.linalg.inv(back[:, :, :2]).transpose(1, 2)
    target = (points - back[:, None, :, 2]) @ inverse
    found = network(crops).float().unflatten(1, (POINTS, 2))
    return F.smooth_l1_loss(found, target, beta=LINEAR_FROM) / LINEAR_FROM


def faces_in_boxes(
    pictures: Tensor, points68: Tensor, shift: float = 0.0, scale: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The crops of faces, ``[B, 3, 96, 96]``, and the way back from them, see ``box_crops``.

    Args:
        shift, scale: how far a box may be from the one that detectors draw.
    """
    faces = Faces.from_points(five_points(points68), 1.0)
    boxes = faces.boxes
    sides = boxes[:, 2:] - boxes[:, :2]
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2.0
    noise = torch.rand(2, len(boxes), 2, dtype=boxes.dtype, device=boxes.device) * 2.0 - 1.0
    middle = middle + shift * noise[0] * sides
    half = sides * torch.exp(scale * noise[1]) / 2.0
    faces = Faces(faces.points, torch.cat((middle - half, middle + half), dim=1))
    return box_crops(pictures, faces, SIDE, margin=1.0, square=False)


@torch.no_grad()
def evaluated(network: nn.Module, portraits: Portraits) -> dict:
    """Errors on people it was not trained on, in boxes as detectors draw them and in worse ones."""
    torch.manual_seed(0)
    figures = {}
    boxes = {"": (0.0, 0.0), " in shifted boxes": (BOX_SHIFT, BOX_SCALE)}
    for name, jitter in boxes.items():
        errors = []
        for places in torch.arange(len(portraits)).split(BATCH):
            points = portraits.points68[places]
            crops, back = faces_in_boxes(portraits.pictures(places), points, *jitter)
            found = network(crops).unflatten(1, (POINTS, 2))
            found = found @ back[:, :, :2].transpose(1, 2) + back[:, None, :, 2]
            errors.append(interocular_error(found, points))
        errors = torch.cat(errors)
        figures[f"mean error / inter-ocular distance{name}"] = round(float(errors.mean()), 5)
        figures[f"95 of 100 below{name}"] = round(float(errors.quantile(0.95)), 5)
    return {"held-out pictures": len(portraits), **figures}


if __name__ == "__main__":
    main()
