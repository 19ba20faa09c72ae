"""One training run as its command line asks for it: settings, weights and the report."""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zmagic.scripts.headless import available_device

from ..command_line import described

__all__ = [
    "DEMO_MODELS",
    "EVALUATORS",
    "Run",
    "bytes_of",
    "kept",
    "parameters",
    "read_command_line",
    "read_weights",
    "write_whole",
]

PACK = Path(__file__).resolve().parents[2]
DEMO_MODELS, EVALUATORS = PACK / "demo_models", PACK / "lab" / "evaluators"

# What a batch norm counts while it is trained; it plays no part in its result.
COUNTER = "num_batches_tracked"

FLAGS = {
    "evaluator": "Train the evaluator, which never guides, instead of the attribute network.",
    "fresh": "Start from random weights instead of those that the pack has.",
}


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
        """The module with the weights that the pack has, as far as they fit.

        Weights for fewer channels become those of the first ones.
        """
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

    def write_report(self, module: nn.Module, steps: int, seconds: float, figures: Mapping) -> None:
        """Figures on people that were not trained on, printed and beside the weights."""
        report = {
            "network": self.title,
            "parameters": parameters(module),
            "seed": self.seed,
            "precision": self.precision,
            "device": _name_of(self.device),
            "batch": self.batch,
            "steps": steps,
            "minutes": round(seconds / 60.0, 1),
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
        "where the device is faster with it, else fp32.",
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
    values = {key: value.float() for key, value in kept.items() if key in state}
    fitting = {key: value for key, value in values.items() if value.shape == state[key].shape}
    others = {key: _widened(values[key], state[key]) for key in values.keys() - fitting.keys()}
    wider = {key: value for key, value in others.items() if value is not None}
    module.load_state_dict(state | wider | fitting)
    return [key for key in state if key not in fitting and not key.endswith(COUNTER)]


def _widened(old: Tensor, new: Tensor) -> Tensor | None:
    """``old`` as the first channels of ``new``, of whose other inputs they hear nothing at first;
    None if it is of another shape."""
    if old.ndim != new.ndim or old.shape[2:] != new.shape[2:]:
        return None
    if any(few > many for few, many in zip(old.shape, new.shape, strict=True)):
        return None
    result = new.clone()
    result[: len(old)] = 0.0
    result[tuple(slice(size) for size in old.shape)] = old
    return result


def parameters(module: nn.Module) -> int:
    """Return how many numbers are trained."""
    return sum(p.numel() for p in module.parameters())


def _name_of(device: str) -> str:
    """The name of the device, for the report."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return device


def _fast_precision(device: str) -> str:
    """Return bf16 where it is multiplied faster, else fp32.

    A CPU without AMX multiplies it at no more than the speed of fp32, and converts it.
    """
    if torch.device(device).type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu.get_capabilities().get("amx_bf16") else "fp32"


def kept(file: Path, made_of: Iterable[bytes], make: Callable[[], Tensor]) -> Tensor:
    """What ``make`` gives, which takes minutes, read from ``file`` if it was made of the same."""
    digest = hashlib.sha256()
    for part in made_of:
        digest.update(part)
    key = digest.hexdigest()
    if file.is_file() and (before := load_file(file)).keys() == {key}:
        return before[key]
    made = make().contiguous()
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, lambda new: save_file({key: made}, new))
    return made


def bytes_of(module: nn.Module) -> Iterator[bytes]:
    """Its weights, for ``kept``."""
    return (value.cpu().numpy().tobytes() for value in module.state_dict().values())


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that it is never seen half written."""
    new = path.with_name(f".{path.name}.new")
    write(new)
    os.replace(new, path)
