"""One training run: a command line, a loop that may be stopped at any time, weights and a report.

The same command continues where the last one stopped: the work folder keeps weights, their moving
average, the optimizer, the random state and the time spent. A run that is interrupted and one that
is not are equal, to the bit on the same machine, where the budget is a number of steps; a budget in
minutes depends on the machine.
"""

import copy
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from timm.optim import Muon
from torch import Tensor, nn

from zmagic.scripts.headless import available_device

from ..command_line import described

__all__ = [
    "DEMO_MODELS",
    "EVALUATORS",
    "Run",
    "Trainer",
    "parameters",
    "read_command_line",
    "read_weights",
    "write_whole",
]

PACK = Path(__file__).resolve().parents[2]
DEMO_MODELS, EVALUATORS = PACK / "demo_models", PACK / "lab" / "evaluators"

# What a batch norm counts while it is trained; it plays no part in its result.
COUNTER = "num_batches_tracked"

SECONDS_BETWEEN_CHECKPOINTS = 60.0
STEPS_BETWEEN_LINES = 100

FLAGS = {
    "evaluator": "Train the evaluator, which never guides, instead of the attribute network.",
    "fresh": "Start from random weights instead of those that the pack has.",
}

# Steps in which the learning rate rises from 0, and what is left of it at the end of the budget.
WARM_UP_STEPS = 100
FINAL_RATE = 0.01


@dataclass(frozen=True)
class Run:
    """A training as a command line asks for it.

    Args:
        name: kind of network, after which its files are called.
        data: folder of the portraits.
        minutes: budget of training in minutes, all sessions together.
        steps: the budget in steps instead.
        evaluator: train the evaluator, which never guides, instead of the attribute network.
        fresh: start from random weights instead of those that the pack has.
        seed: seed of everything that is drawn at random; evaluators draw from another stream.
        work: folder that keeps what an interrupted run needs.
        out: folder for weights and report; None: where the pack has them.
        precision: "bf16" or "fp32", in which products are computed; weights and sums are always
            float32.
        device: where to compute; pictures and random numbers are there too.
        batch: pictures of a step.
        rate_factor: what the learning rate is multiplied by; it grows as the root of the batch
            (Malladi et al., "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms",
            NeurIPS 2022).
    """

    name: str
    data: Path
    minutes: float
    steps: int | None = None
    evaluator: bool = False
    fresh: bool = False
    seed: int = 1
    work: Path = PACK / "output" / "training"
    out: Path | None = None
    precision: str = "fp32"
    device: str = "cpu"
    batch: int = 32
    rate_factor: float = 1.0

    @property
    def title(self) -> str:
        return f"{self.name}_evaluator" if self.evaluator else f"zmagic_demo_{self.name}"

    @property
    def checkpoint(self) -> Path:
        return self.work / self.title / "checkpoint.pt"

    def file(self, suffix: str) -> Path:
        """Return where a result goes."""
        folder = self.out or (EVALUATORS if self.evaluator else DEMO_MODELS)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{self.title}{suffix}"

    def started(self, module: nn.Module) -> nn.Module:
        """The module with the weights that the pack has, as far as they fit."""
        folder = EVALUATORS if self.evaluator else DEMO_MODELS
        path = folder / f"{self.title}.safetensors"
        if path.is_file() and not self.fresh and (missing := _load(module, path)):
            print(f"starts anew, since {path.name} lacks it: {', '.join(missing)}", flush=True)
        return module

    def seeded(self) -> None:
        """Make random numbers those of this run, on every device."""
        torch.manual_seed(2 * self.seed + self.evaluator)

    def write_weights(
        self,
        module: nn.Module,
        extra: Mapping[str, Tensor] | None = None,
        name: str | None = None,
    ) -> Path:
        """The weights in half precision; the statistics of batch norms stay in single precision.

        Args:
            module: the network.
            extra: what stands beside or in place of its weights.
            name: of the file without its ending; None: the run's own.
        """
        path = self.file(".safetensors")
        path = path.with_stem(name) if name else path
        weights = {
            key: (value if "running_" in key or not value.is_floating_point() else value.half())
            for key, value in module.state_dict().items()
            if not key.endswith(COUNTER)
        }
        weights = {key: value.contiguous() for key, value in weights.items()}
        write_whole(path, lambda new: save_file({**weights, **(extra or {})}, new))
        return path

    def write_report(self, trainer: "Trainer", figures: Mapping) -> None:
        """Figures on people that were not trained on, printed and beside the weights."""
        report = {
            "network": self.title,
            "parameters": parameters(trainer.module),
            "seed": self.seed,
            "precision": self.precision,
            "device": _name_of(self.device),
            "batch": self.batch,
            "steps": trainer.step,
            "minutes": round(trainer.seconds / 60.0, 1),
            **figures,
        }
        text = json.dumps(report, indent=2)
        write_whole(self.file("_figures.json"), lambda new: new.write_text(text + "\n"))
        print(text, flush=True)


def read_command_line(
    name: str, description: str, minutes: float, batch: int, *, has_evaluator: bool = True
) -> Run:
    """The arguments of a training; from here on new tensors are on its device.

    Args:
        name: kind of network, after which its files are called.
        description: the module's docstring; ``--help`` shows its first line.
        minutes: default budget of training, in minutes.
        batch: default number of pictures of a step.
        has_evaluator: whether there is an evaluator of this kind.
    """
    parser = described(f"training.{Path(sys.argv[0]).stem}", description)
    parser.add_argument(
        "--data", type=Path, required=True, help="Folder that lab.training.portraits wrote."
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=minutes,
        help="How long to train, in minutes, all sessions of an interrupted run together; the "
        "learning rate falls over this time. Default: %(default)g.",
    )
    parser.add_argument(
        "--steps",
        type=int,
        help="How long to train, in steps, instead of minutes: equal results on the same machine.",
    )
    for flag, meaning in FLAGS.items():
        if has_evaluator or flag != "evaluator":
            parser.add_argument(f"--{flag}", action="store_true", help=meaning)
    parser.add_argument(
        "--seed",
        type=int,
        default=Run.seed,
        help="Seed of everything that is drawn at random. Default: %(default)s.",
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Run.work,
        help="Folder that keeps what an interrupted run needs to go on. Default: output/training "
        "in the pack.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="Folder for the weights and their figures. Default: demo_models, for evaluators "
        "lab/evaluators.",
    )
    parser.add_argument(
        "--threads", type=int, default=2, help="CPU threads of PyTorch. Default: %(default)s."
    )
    parser.add_argument(
        "--precision",
        choices=("bf16", "fp32"),
        help="Precision of the computation; weights and sums are always float32. Default: bf16 "
        "where the device multiplies it, else fp32.",
    )
    parser.add_argument(
        "--device",
        default=available_device("cuda"),
        help="Where to compute, such as cpu or cuda. Default here: %(default)s.",
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=batch,
        help="Pictures of a training step; the learning rate follows the root of their number. "
        "Default: %(default)s.",
    )
    arguments = vars(parser.parse_args())
    torch.set_num_threads(arguments.pop("threads"))
    arguments["precision"] = arguments["precision"] or _fast_precision(arguments["device"])
    torch.set_default_device(arguments["device"])
    run = Run(name, **arguments, rate_factor=(arguments["batch"] / batch) ** 0.5)
    run.seeded()
    return run


class Trainer:
    """Muon with a cosine schedule on a module, and the moving average of its weights.

    Muon (Jordan et al., 2024) makes the step of a matrix or kernel orthogonal; biases, norms and
    embeddings take steps of AdamW.

    Args:
        run: budget and files.
        module: all that is trained.
        learning_rate: its largest value.
        weight_decay: decay of matrices and kernels; biases and norms have none.
        averaging: share that the average keeps in a step; smaller in the first steps.
    """

    def __init__(
        self,
        run: Run,
        module: nn.Module,
        learning_rate: float,
        weight_decay: float = 1e-2,
        averaging: float = 0.999,
    ):
        # Convolutions are faster where the channels of a pixel lie together.
        self.run = run
        self.module = module.to(run.device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(module).eval().requires_grad_(False)
        self.learning_rate, self.averaging = learning_rate * run.rate_factor, averaging
        self.optimizer = Muon(
            _groups_of(module, weight_decay), learning_rate, nesterov=True, betas=(0.9, 0.98)
        )
        self.step, self.seconds = 0, 0.0

    @property
    def progress(self) -> float:
        """Share of the budget that is spent, 0 to 1."""
        if self.run.steps is not None:
            return min(1.0, self.step / self.run.steps)
        return min(1.0, self.seconds / (60.0 * self.run.minutes))

    def train(self, loss: Callable[[], Tensor]) -> nn.Module:
        """Spend what is left of the budget on ``loss``, which draws its own batch.

        Returns:
            The averaged module, ready to be evaluated.
        """
        if self.run.checkpoint.is_file():
            self._load()
        self.module.train()
        saved = time.monotonic()
        while self.progress < 1.0:
            begin = time.monotonic()
            value = self._stepped(loss)
            now = time.monotonic()
            self.seconds += now - begin
            if self.step % STEPS_BETWEEN_LINES == 0 or self.progress >= 1.0:
                line = f"step {self.step}  {self.seconds:.0f} s  loss {value.item():.4f}"
                print(line, flush=True)
            if now - saved > SECONDS_BETWEEN_CHECKPOINTS:
                self._save()
                saved = now
        self._save()
        return self.average

    def _stepped(self, loss: Callable[[], Tensor]) -> Tensor:
        rate = self.learning_rate * _schedule(self.step, self.progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        kind = torch.device(self.run.device).type
        with torch.autocast(kind, torch.bfloat16, enabled=self.run.precision == "bf16"):
            value = loss()
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), 1.0, error_if_nonfinite=True)
        self.optimizer.step()
        self.step += 1
        self._averaged()
        return value.detach()

    @torch.no_grad()
    def _averaged(self) -> None:
        kept = min(self.averaging, (1.0 + self.step) / (10.0 + self.step))
        average, new = self.average.state_dict(), self.module.state_dict()
        moving = [key for key, value in average.items() if value.is_floating_point()]
        torch._foreach_lerp_([average[k] for k in moving], [new[k] for k in moving], 1.0 - kept)
        for key in average.keys() - set(moving):
            average[key].copy_(new[key])

    def _save(self) -> None:
        state = {
            "module": self.module.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": _random_states(self.run.device),
            "step": self.step,
            "seconds": self.seconds,
        }
        self.run.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.run.checkpoint, lambda new: torch.save(state, new))

    def _load(self) -> None:
        state = torch.load(self.run.checkpoint, map_location="cpu", weights_only=True)
        self.module.load_state_dict(state["module"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        _set_random_states(self.run.device, state["random"])
        self.step, self.seconds = state["step"], state["seconds"]
        print(f"continues after step {self.step}, {self.seconds:.0f} s", flush=True)


def _groups_of(module: nn.Module, weight_decay: float) -> list[dict]:
    """Parameters for Muon, and those that take steps of AdamW.

    An embedding is a table of vectors, of which a batch moves a few: no matrix to make orthogonal.
    """
    tables = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    trained = [p for p in module.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim > 1 and id(p) not in tables]
    others = [p for p in trained if p.ndim <= 1 or id(p) in tables]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0, "use_fallback": True},
    ]


def read_weights(module: nn.Module, path: Path) -> nn.Module:
    """The module with weights that ``Run.write_weights`` wrote, frozen, ready to be evaluated, on
    the default device.

    Raises:
        ValueError: the file is of another network.
    """
    if missing := _load(module, path):
        raise ValueError(f"{path} does not fit this network: it lacks {', '.join(missing)}")
    return module.eval().requires_grad_(False).to(torch.get_default_device())


def _load(module: nn.Module, path: Path) -> list[str]:
    """Give the module the weights that ``Run.write_weights`` wrote, in float32, as far as they fit.

    Returns:
        The names of those that do not, or are not there.
    """
    state, kept = module.state_dict(), load_file(path)
    fitting = {k: v.float() for k, v in kept.items() if k in state and v.shape == state[k].shape}
    module.load_state_dict(state | fitting)
    return [key for key in state if key not in fitting and not key.endswith(COUNTER)]


def parameters(module: nn.Module) -> int:
    """Return how many numbers are trained."""
    return sum(p.numel() for p in module.parameters())


def _name_of(device: str) -> str:
    """The name of the device, for the report."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return device


def _random_states(device: str) -> list[Tensor]:
    """The random state of the CPU, which some draws are always made on, and of the device."""
    states = [torch.get_rng_state()]
    if torch.device(device).type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def _set_random_states(device: str, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if torch.device(device).type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


def _fast_precision(device: str) -> str:
    """Return bf16 where it is multiplied, which is four times as fast, else fp32."""
    if torch.device(device).type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    able = torch.cpu.get_capabilities()
    return "bf16" if able.get("amx_bf16") or able.get("avx512_bf16") else "fp32"


def _schedule(step: int, progress: float) -> float:
    """A linear rise, then half a cosine (Loshchilov and Hutter, ICLR 2017) over the budget."""
    falling = FINAL_RATE + (1.0 - FINAL_RATE) * (1.0 + math.cos(math.pi * progress)) / 2.0
    return falling * min(1.0, (step + 1) / WARM_UP_STEPS)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that it is never seen half written."""
    new = path.with_name(f".{path.name}.new")
    write(new)
    os.replace(new, path)
