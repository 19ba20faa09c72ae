"""Train the face recognizer.

    python -m lab.training.recognizer --data FOLDER [--evaluator]

The recognizer is a narrow IResNet, which ``Load Face Recognizer`` knows by its weights, trained to
tell the people of the training split apart with a margin between them (Wang et al., "CosFace",
CVPR 2018). The evaluator is a RegNet (Radosavovic et al., CVPR 2020), trained without a margin
(Wang et al., "NormFace", ACM Multimedia 2017). Both see the crop of 112 x 112 pixels of ArcFace.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zmagic.guidance.faces.crops import Faces, aligned_crops
from zmagic.guidance.networks.iresnet import LAYERS, IResNet

from .data import Portraits, Variation, read_portraits, varied
from .metrics import area_under_curve, true_accept_rate, verification_scores
from .running import EVALUATORS, parameters, read_command_line, read_weights
from .trainer import Trainer

MINUTES = 90.0
LEARNING_RATE = 2e-3
BATCH = 32
VARIATION = Variation(scale=0.06, shift=0.02, roll=0.08, light=0.3, gray=0.1)

# The published depth of 18 layers, at about a third of its widths.
WIDTHS, FEATURES = (32, 64, 128, 160), 128

# CosFace's scale of cosines and its margin: small, since a few hundred people are told apart.
SCALE, MARGIN = 24.0, 0.25

# Noise of the five points, in sides of the picture: a detector's are not exact either.
POINT_NOISE = 0.006

# Share of the crop's side that a patch of noise may hide: recognition shall not rest on one part.
HIDDEN = 0.3


class WithPeople(nn.Module):
    """A recognizer and, for its training, one direction for each person."""

    def __init__(self, recognizer: nn.Module, people: int, margin: float):
        super().__init__()
        self.recognizer, self.margin = recognizer, margin
        self.directions = nn.Parameter(torch.randn(people, FEATURES) * FEATURES**-0.5)

    def forward(self, crops: Tensor, people: Tensor) -> Tensor:
        """The loss of crops ``[B, 3, 112, 112]`` that show these ``people [B]``."""
        embedding = F.normalize(self.recognizer(crops).float())
        with torch.autocast(embedding.device.type, enabled=False):
            cosines = embedding @ F.normalize(self.directions).T  # [B, people]
        right = F.one_hot(people, cosines.shape[1])
        return F.cross_entropy(SCALE * (cosines - self.margin * right), people)


def main() -> None:
    run = read_command_line("recognizer", __doc__, MINUTES, BATCH)
    train, held_out = read_portraits(run.data, "train"), read_portraits(run.data, "test")
    how = VARIATION.toward(run.evaluator)
    people = int(train.people.max()) + 1
    network = WithPeople(
        run.started(_empty(run.evaluator)), people, 0.0 if run.evaluator else MARGIN
    )
    trainer = Trainer(run, network, LEARNING_RATE, weight_decay=5e-2)
    recognizer = trainer.train(lambda: loss(trainer.module, train, run.batch, how)).recognizer
    run.write_weights(recognizer)
    figures = evaluated(recognizer, held_out)
    trainer.write_report({"parameters": parameters(recognizer), **figures})


def load_evaluator() -> nn.Module:
    """The evaluator as it was trained; it takes crops that ``normalized`` prepared."""
    return read_weights(_empty(evaluator=True), EVALUATORS / "recognizer_evaluator.safetensors")


def _empty(evaluator: bool) -> nn.Module:
    if not evaluator:
        return IResNet(LAYERS[18], FEATURES, widths=WIDTHS)
    import timm  # open_clip brings it

    return timm.create_model("regnetx_002", num_classes=FEATURES)


def normalized(crops: Tensor) -> Tensor:
    """Crops in [0, 1] on the scale that the recognizers see, insightface's: -1 to 1."""
    return (crops - 0.5) / 0.5


def loss(network: WithPeople, portraits: Portraits, batch: int, how: Variation) -> Tensor:
    """The loss of a random batch."""
    places = portraits.drawn(batch)
    pictures, points, _ = varied(portraits.pictures(places), how, portraits.points[places])
    points = points + POINT_NOISE * torch.randn_like(points)
    crops = normalized(aligned_crops(pictures, Faces.from_points(points, 1.0)))
    return network(_partly_hidden(crops), portraits.people[places])


def embeddings(network: nn.Module, pictures: Tensor, faces: Faces) -> Tensor:
    """``[N, 128]`` of ``pictures [N, 3, H, W]`` in [0, 1]; ``faces``: of each, or one for all."""
    faces = faces.expanded(len(pictures))
    found = []
    with torch.no_grad():
        for places in torch.arange(len(pictures)).split(BATCH):
            chosen = places.cpu()  # where faces are
            part = Faces(faces.points[chosen], faces.boxes[chosen])
            found.append(network(normalized(aligned_crops(pictures[places], part))))
    return torch.cat(found)


def evaluated(network: nn.Module, portraits: Portraits) -> dict:
    """Verification: every pair of sittings of people that it was not trained on."""
    first = portraits.where("coloring", 0)  # the others of a sitting show the same face
    faces = Faces.from_points(portraits.points[first], 1.0)
    found = embeddings(network, portraits.pictures(first), faces)
    same, different = verification_scores(found, portraits.people[first])
    return {
        "held-out pictures": len(found),
        "held-out people": int(portraits.people.max()) + 1,
        "pairs of one person": len(same),
        "pairs of two people": len(different),
        "verification auc": round(area_under_curve(same, different), 5),
        "true accepts at 1 % false accepts": round(true_accept_rate(same, different, 0.01), 4),
        "median cosine of one person": round(float(same.median()), 3),
        "median cosine of two people": round(float(different.median()), 3),
    }


def _partly_hidden(crops: Tensor) -> Tensor:
    """A patch of noise in half of the crops (Zhong et al., "Random Erasing", AAAI 2020)."""
    count, _, side, _ = crops.shape
    size = torch.rand(2, count, 1) * HIDDEN * side
    start = torch.rand(2, count, 1) * (side - size)
    place = torch.arange(side)
    inside = (place >= start) & (place < start + size)  # [2, B, side]
    patch = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    patch = patch & (torch.rand(count, 1, 1, 1) < 0.5)
    return torch.where(patch, torch.randn_like(crops), crops)


if __name__ == "__main__":
    main()
