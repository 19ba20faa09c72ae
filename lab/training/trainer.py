"""A loop that may be stopped at any time.

The same command continues where the last one stopped: the work folder keeps weights, their moving
average, the optimizer, the random state and the time spent. A run that is interrupted and one that
is not are equal, to the bit on the same machine, where the budget is a number of steps; a budget in
minutes depends on the machine.
"""

import copy
import math
import time
from collections.abc import Callable, Mapping

import torch
from timm.optim import Muon
from torch import Tensor, nn

from .running import Run, write_whole

__all__ = ["Trainer"]

SECONDS_BETWEEN_CHECKPOINTS = 60.0
STEPS_BETWEEN_LINES = 100

# Steps in which the learning rate rises from 0, and what is left of it at the end of the budget.
WARM_UP_STEPS = 100
FINAL_RATE = 0.01


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

    def write_report(self, figures: Mapping) -> None:
        """The run's report, with what the training took."""
        self.run.write_report(self.module, self.step, self.seconds, figures)

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


def _schedule(step: int, progress: float) -> float:
    """A linear rise, then half a cosine (Loshchilov and Hutter, ICLR 2017) over the budget."""
    falling = FINAL_RATE + (1.0 - FINAL_RATE) * (1.0 + math.cos(math.pi * progress)) / 2.0
    return falling * min(1.0, (step + 1) / WARM_UP_STEPS)
