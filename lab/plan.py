"""How much is measured, kept beside the results so that an interrupted run goes on with it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from .methods import ABLATIONS, BASELINE, TUNED_AS, UNGUIDED, Method, methods
from .tasks import attributes_of

__all__ = ["BATCH", "STRENGTHS", "UNTUNED", "Plan"]

# The grid that the tuning begins with; it grows while the best is at an end of it.
# In the few steps that fit here a correction by the residual rule has little time to be mended: 0.4
# breaks most faces in 5 steps, and few in 10.
STRENGTHS = (0.1, 0.2, 0.4, 0.8)
# The strengths of all methods without tuning.
UNTUNED = (0.2,)
BATCH = 10


@dataclass(frozen=True)
class Plan:
    """Sizes of all stages.

    Args:
        tasks: names of the tasks.
        tests, tunings, ablations: numbers of condition sets.
        steps: steps of the sampler.
        strengths: strengths that are tried for every method; more where the best is an end of them.
        studies: names of the ablations.
        batch: condition sets of one run of the sampler.
        methods: names of the rows, besides unguided and the baseline; empty for all.
        made_with: digest of the networks and portraits.
        candidates: task and row to the pictures of which it keeps the best.
        prompts: whether the model follows the captions of the sets, too.
    """

    tasks: tuple[str, ...]
    tests: int
    tunings: int
    ablations: int
    steps: int
    strengths: tuple[float, ...] = STRENGTHS
    studies: tuple[str, ...] = tuple(ABLATIONS)
    batch: int = BATCH
    methods: tuple[str, ...] = ()
    made_with: str = ""
    candidates: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    prompts: bool = False

    def rows(self, task: str) -> tuple[Method, ...]:
        """The methods of a task."""
        # What a row's strength is taken from has to be there.
        tuned_as = [TUNED_AS[name] for name in self.methods if name in TUNED_AS]
        wanted = {UNGUIDED, BASELINE, *self.methods, *tuned_as}
        candidates = self.candidates.get(task, {})
        return tuple(
            replace(method, candidates=candidates.get(method.name, 1))
            for method in methods(len(attributes_of(task)))
            if not self.methods or method.name in wanted
        )

    def save(self, path: Path) -> None:
        """Keep the plan, so that the run continues with it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @staticmethod
    def load(path: Path) -> "Plan | None":
        """The plan of an earlier run, None without one."""
        if not path.is_file():
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
        lists = {key: tuple(value) for key, value in content.items() if isinstance(value, list)}
        return Plan(**{**content, **lists})
