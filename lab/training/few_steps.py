"""Distill the demo model to four steps: a LoRA for its UNet.

    python -m lab.training.few_steps --data FOLDER

The teacher is the demo model as it is: told a caption, with cfg, in 20 steps of Euler. A student
goes the way of five of them in one, told the same and without cfg (after Salimans and Ho,
"Progressive Distillation for Fast Sampling of Diffusion Models", ICLR 2022, in a single round). It
is the teacher with matrices of low rank added to its own (Hu et al., "LoRA", ICLR 2022), in the
layout that ComfyUI loads. Sample with it as one does with few steps elsewhere: euler, sgm_uniform,
4 steps, cfg 1.
"""

from functools import partial

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from . import likeness
from .captions import some_of
from .data import read_portraits
from .diffusion import CFG, PART, autoencoder_file, decoded, tokens_of, trained, untold
from .painter import Painter, Schedule
from .running import Run, bytes_of, kept, parameters, read_command_line, write_whole
from .sheets import save_sheet
from .taesd import LATENT_CHANNELS, autoencoder_from
from .trainer import Trainer

MINUTES = 30.0
LEARNING_RATE = 4e-4
BATCH = 32

# Steps of the student, and those of the teacher for each.
STEPS, WITHIN = 4, 5

# Pictures that the teacher makes for the student to learn from.
TAUGHT = 2048

RANK = 24
LORA_UP, LORA_DOWN, LORA_ALPHA = "lora_up.weight", "lora_down.weight", "alpha"

# Sizes of the report.
SHOWN, SAMPLES = 64, 256


def main() -> None:
    run = read_command_line("4_steps", __doc__, MINUTES, BATCH, has_evaluator=False)
    train = read_portraits(run.data, "train")
    painter = trained(run).eval().requires_grad_(False)
    places = torch.randint(len(train), (TAUGHT,), device="cpu").tolist()
    told = tokens_of([some_of(train.labels[place]) for place in places]).to(run.device)
    ways = kept_ways(run, painter, told)
    trainer = Trainer(run, student_of(painter), LEARNING_RATE, weight_decay=0.0)
    student = trainer.train(lambda: loss(trainer.module, ways, told, run.batch))
    path = run.file("_lora.safetensors")
    write_whole(path, lambda new: save_file(lora_of(student.unet), new))
    run.seeded()
    asked = read_portraits(run.data, "validation", "test").labels[:SAMPLES]
    tokens = tokens_of([label["caption"] for label in asked]).to(run.device)
    autoencoder = autoencoder_from(load_file(autoencoder_file(run.out))).eval().to(run.device)
    pictures = decoded(autoencoder, torch.cat([sampled(student, p) for p in tokens.split(PART)]))
    save_sheet(run.file("_samples.png"), pictures[:SHOWN], columns=8)
    figures = likeness.figures(pictures, asked, train, run)
    trainer.write_report({"parameters": _added(student.unet), "pictures": TAUGHT, **figures})


class LowRank(nn.Module):
    """Weights plus ``up @ down``, which is zero at first.

    Args:
        weights: ``[out, in, ...]``.
        rank: of what is added.
    """

    def __init__(self, weights: Tensor, rank: int):
        super().__init__()
        rank = min(rank, *weights.flatten(1).shape)
        self.up = nn.Parameter(weights.new_zeros(len(weights), rank))
        self.down = nn.Parameter(weights.new_empty(rank, weights[0].numel()))
        nn.init.normal_(self.down, std=self.down.shape[1] ** -0.5)

    def forward(self, weights: Tensor) -> Tensor:
        return weights + (self.up @ self.down).view_as(weights)


def student_of(painter: Painter) -> Painter:
    """The painter itself, frozen but for what is added to the matrices and kernels of its UNet."""
    for module in list(painter.unet.modules()):
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            added = LowRank(module.weight, RANK)
            parametrize.register_parametrization(module, "weight", added)
    return painter


def lora_of(unet: nn.Module) -> dict[str, Tensor]:
    """What was added, in half precision, under the names that ComfyUI's loaders of LoRAs know."""
    result = {}
    for name, module in unet.named_modules():
        if not parametrize.is_parametrized(module, "weight"):
            continue
        added = module.parametrizations.weight[0]
        rank, rest = len(added.down), module.weight.shape[1:]
        key = f"diffusion_model.{name}"
        result[f"{key}.{LORA_UP}"] = added.up.view(-1, rank, *[1] * (len(rest) - 1))
        result[f"{key}.{LORA_DOWN}"] = added.down.view(rank, *rest)
        result[f"{key}.{LORA_ALPHA}"] = torch.tensor(float(rank))
    return {key: value.detach().half().contiguous() for key, value in result.items()}


def levels(steps: int) -> Tensor:
    """Sigmas ``[steps + 1]`` of ComfyUI's scheduler sgm_uniform, the last one 0."""
    schedule = Schedule()
    times = [schedule.timestep(sigma) for sigma in (schedule.sigma_max, schedule.sigma_min)]
    even = torch.linspace(*(float(time) for time in times), steps + 1)[:-1]
    return torch.stack([*(schedule.sigma(time) for time in even), torch.zeros(())])


def noise_in(painter: Painter, x: Tensor, sigma: Tensor, told: Tensor) -> Tensor:
    """The noise that is found in ``x``, of unit variance."""
    schedule = Schedule()
    time = schedule.timestep(sigma).float().expand(len(x))
    return painter(schedule.calculate_input(sigma, x), time, told)


@torch.no_grad()
def ways_of(painter: Painter, told: Tensor) -> Tensor:
    """Where the teacher comes by on its way from noise to picture, at the student's levels.

    Args:
        told: ``[N, 77]`` tokens.

    Returns:
        ``[N, STEPS + 1, 16, 16, 16]``.
    """
    sigmas = levels(STEPS * WITHIN)
    x = torch.randn(len(told), LATENT_CHANNELS, 16, 16) * sigmas[0]
    way = [x]
    both = torch.cat((told, untold().to(told.device).expand_as(told)))
    for step, (sigma, after) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True), 1):
        with_text, without = noise_in(painter, x.repeat(2, 1, 1, 1), sigma, both).chunk(2)
        x = x + (after - sigma) * (without + CFG * (with_text - without))
        if step % WITHIN == 0:
            way.append(x)
    return torch.stack(way, 1)


def kept_ways(run: Run, painter: Painter, told: Tensor) -> Tensor:
    """``ways_of`` all, read from the work folder if they were made before."""
    made_of = (*bytes_of(painter), told.cpu().numpy().tobytes())

    def make() -> Tensor:
        return torch.cat([ways_of(painter, part) for part in told.split(PART)])

    return kept(run.checkpoint.with_name("ways.safetensors"), made_of, make).to(run.device)


def loss(student: Painter, ways: Tensor, told: Tensor, batch: int) -> Tensor:
    """Squared error of where a step leads, in a random batch at one level.

    It counts by the size of a noisy picture there.

    Args:
        ways: ``[N, STEPS + 1, 16, 16, 16]``.
        told: ``[N, 77]`` tokens.
    """
    sigmas = levels(STEPS)
    step = int(torch.randint(STEPS, (), device="cpu"))
    places = torch.randint(len(ways), (batch,))
    here, there = ways[places, step], ways[places, step + 1]
    found = noise_in(student, here, sigmas[step], told[places])
    after = here + (sigmas[step + 1] - sigmas[step]) * found
    return F.mse_loss(after, there) / (sigmas[step + 1].square() + 1.0)


@torch.no_grad()
def sampled(student: Painter, tokens: Tensor) -> Tensor:
    """Latents ``[N, 16, 16, 16]`` told by tokens ``[N, 77]``, in the student's steps."""
    sigmas = levels(STEPS)
    x = torch.randn(len(tokens), LATENT_CHANNELS, 16, 16) * sigmas[0]
    step = partial(noise_in, student, told=tokens)
    for sigma, after in zip(sigmas[:-1], sigmas[1:], strict=True):
        x = x + (after - sigma) * step(x, sigma)
    return x


def _added(unet: nn.Module) -> int:
    """How many numbers the student has besides the teacher's."""
    return sum(parameters(m) for m in unet.modules() if isinstance(m, LowRank))


if __name__ == "__main__":
    main()
