"""The command line of the tables: which tasks, on which portraits, by which networks."""

import argparse
import hashlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from .attributes import ATTRIBUTES, BY_DLIB, Attribute
from .command_line import checked, described
from .methods import ABLATIONS, FAITHFUL, UNGUIDED, methods
from .networks import KINDS, Networks
from .plan import BATCH
from .shards import Shard
from .tasks import ABLATION_TASK, MANY, TASKS, attributes_of

# isort: split
from scripts.dask_cluster import checked_scheduler
from zmagic.host.demo_model import (
    AUTOENCODER_FILE,
    FEW_STEPS_FILE,
    TEXT_ENCODER_FILE,
    UNET_FILE,
)

__all__ = ["QUICK_MINUTES", "digest", "needed_attributes", "read_command_line"]

DLIB = "dlib"
QUICK_MINUTES = 5.0
FEW_STEPS = 4
# Option, what its networks are called, and what more there is to say of it.
ROLES = (
    ("guide", "attribute networks, which guide", ""),
    (
        "evaluator",
        "evaluators, which never guide",
        f" FILE may be {DLIB} for landmarks and recognizer: then dlib's networks measure.",
    ),
)


def read_command_line(description: str) -> argparse.Namespace:
    """The options; ``guide_networks`` and ``evaluator_networks`` are where networks come from."""
    parser = described("tables", description)
    parser.add_argument(
        "--portraits", type=Path, required=True, help="Folder that lab.training.portraits wrote."
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"Take {QUICK_MINUTES:g} minutes: few condition sets and steps, no tuning of "
        "strengths, no ablations.",
    )
    parser.add_argument(
        "--hours",
        type=float,
        default=5.0,
        help="How long the full run may take, in hours: condition sets and steps are chosen to "
        "fit; growing grids of strengths come on top. Default: %(default)g.",
    )
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=list(TASKS),
        help="Names of tasks, or attributes joined by plus signs, such as 'text + sketch', of "
        f"{', '.join(ATTRIBUTES)}. Default: {', '.join(TASKS)}.",
    )
    named = [method.name for method in methods(2) if method.name != UNGUIDED]
    parser.add_argument(
        "--methods",
        nargs="+",
        default=[],
        metavar="METHOD",
        choices=named,
        help=f"Rows of the tables besides unguided and FreeDoM, of {', '.join(map(repr, named))}. "
        "Default: all.",
    )
    parser.add_argument(
        "--steps",
        nargs="+",
        type=int,
        default=[None],
        help="Steps of the sampler, 1 or more; several numbers make tables of each, in folders of "
        "their own, and share the time. Default: as many as there is time for.",
    )
    parser.add_argument(
        "--few-steps",
        action="store_true",
        help=f"Guide the model that was distilled to {FEW_STEPS} steps without cfg, in so many "
        "steps if --steps is not given.",
    )
    parser.add_argument(
        "--prompts",
        choices=("on", "off"),
        default="on",
        help="Whether the model follows the caption of each condition set's person beside the "
        "conditions; off: it is told nothing, at cfg 1. Default: %(default)s.",
    )
    parser.add_argument(
        "--sets",
        type=int,
        help="Condition sets of each table, 1 or more. Default: 100, with --quick fewer.",
    )
    parser.add_argument(
        "--studies",
        nargs="*",
        default=list(ABLATIONS),
        metavar="STUDY",
        choices=list(ABLATIONS),
        help=f"Ablations to make, of {', '.join(map(repr, ABLATIONS))}; none if none is named. "
        "Default: all.",
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=BATCH,
        help="Condition sets that the sampler guides at once. Default: %(default)s.",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="Processes that share the work; more than one pays on an accelerator. "
        "Default: %(default)s.",
    )
    parser.add_argument(
        "--scheduler",
        type=checked(checked_scheduler),
        metavar="ADDRESS",
        help="Dask scheduler whose workers share the work: tcp://HOST:8786, or local:N for N "
        "processes on this machine. docs/many_machines.md says how to start workers.",
    )
    parser.add_argument(
        "--shard",
        type=checked(Shard.parse),
        metavar="I/N",
        help="Do a part of the jobs, I from 0 to N - 1, into a file of its own; a run without it "
        "reads all parts, does what is left and writes the tables. Needs the plan of --plan.",
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="Write how much is going to be measured, and stop.",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="Folder of the results. Default: output/tables in the pack, with --quick "
        "output/tables-quick.",
    )
    for role, title, more in ROLES:
        parser.add_argument(
            f"--{role}",
            nargs="+",
            default=[],
            metavar="KIND=FILE",
            help=f"Files of {title}, in place of those that training makes. KIND is one of "
            f"{', '.join(KINDS)}.{more}",
        )
    options = parser.parse_args()
    if options.few_steps and options.steps == [None]:
        options.steps = [FEW_STEPS]
    if options.scheduler and options.workers != 1:
        parser.error("--workers and --scheduler exclude each other")
    _check(parser, options)
    evaluators = dict(pair.split("=", 1) for pair in options.evaluator)
    options.by_dlib = [(kind,) for kind, file in evaluators.items() if file == DLIB]
    evaluators = {kind: Path(file) for kind, file in evaluators.items() if file != DLIB}
    guides = {kind: Path(file) for kind, file in (pair.split("=", 1) for pair in options.guide)}
    options.guide_networks, options.evaluator_networks = (
        Networks(False, guides),
        Networks(True, evaluators),
    )
    return options


def digest(options: argparse.Namespace, attributes: Iterable[Attribute]) -> str:
    """Hexadecimal digest of what results depend on beside the code: networks and portraits."""
    attributes = list(attributes)
    files = [
        UNET_FILE,
        *((FEW_STEPS_FILE,) if options.few_steps else ()),
        TEXT_ENCODER_FILE,
        AUTOENCODER_FILE,
        *options.guide_networks.files_of(kind for a in attributes for kind in a.guided_by),
        *options.evaluator_networks.files_of(kind for a in attributes for kind in a.evaluated_by),
        options.portraits / "labels.jsonl",
    ]
    parts = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return hashlib.sha256("".join([*parts, *map(str, options.by_dlib)]).encode()).hexdigest()


def needed_attributes(options: argparse.Namespace, studies: Sequence[str]) -> dict[str, Attribute]:
    """All that the tasks and studies need.

    Raises:
        SystemExit: a network is missing; says which command makes it.
    """
    tasks = [*options.tasks, *((MANY,) if "number of conditions" in studies else ())]
    names = dict.fromkeys(name for task in tasks for name in attributes_of(task))
    kinds = {
        name: BY_DLIB[name]
        if ATTRIBUTES[name].evaluated_by[:1] in options.by_dlib
        else ATTRIBUTES[name]
        for name in names
    }
    missing = [
        sentence
        for kind in kinds.values()
        for networks, needed in (
            (options.guide_networks, kind.guided_by),
            (options.evaluator_networks, kind.evaluated_by),
        )
        for sentence in map(networks.missing, needed)
        if sentence
    ]
    if missing:
        sys.exit("\n".join(dict.fromkeys(missing)))
    return {
        name: kind(options.guide_networks, options.evaluator_networks)
        for name, kind in kinds.items()
    }


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    for pair in (*options.guide, *options.evaluator):
        if pair.split("=", 1)[0] not in KINDS or "=" not in pair:
            parser.error(f"expected KIND=FILE with KIND one of {', '.join(KINDS)}, got {pair}")
    for task in options.tasks:
        unknown = set(attributes_of(task)) - set(ATTRIBUTES)
        if unknown:
            parser.error(
                f"task '{task}': expected {', '.join(TASKS)}, or attributes joined by plus signs "
                f"({', '.join(ATTRIBUTES)})"
            )
    for name, numbers in (("steps", options.steps), ("sets", [options.sets])):
        for number in numbers:
            if number is not None and number < 1:
                parser.error(f"--{name}: expected 1 or more, got {number}")
    if options.studies and not options.quick:
        if ABLATION_TASK not in options.tasks:
            parser.error(
                f"the studies need the strengths of the task '{ABLATION_TASK}' among --tasks"
            )
        if options.methods and FAITHFUL not in options.methods:
            parser.error(f"the studies need the strength of '{FAITHFUL}' among --methods")
