"""The command line of the tables: which tasks, on which portraits, by which networks."""

import argparse
import hashlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from .attributes import ATTRIBUTES, BY_DLIB, Attribute
from .methods import ABLATIONS, FAITHFUL, UNGUIDED, methods
from .networks import KINDS, Networks
from .plan import BATCH
from .tasks import ABLATION_TASK, MANY, TASKS, attributes_of

# isort: split
from zmagic.host.demo_model import AUTOENCODER_FILE, UNET_FILE

__all__ = ["digest", "needed_attributes", "read_command_line"]

DLIB = "dlib"


def read_command_line(description: str) -> argparse.Namespace:
    """The options; ``guide_networks`` and ``judge_networks`` are where networks come from."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument(
        "--portraits", type=Path, required=True, help="folder that lab.training.portraits writes"
    )
    parser.add_argument("--quick", action="store_true", help="few sets and steps, no tuning")
    parser.add_argument("--hours", type=float, default=3.0, help="that the full run may take")
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=list(TASKS),
        help=f"names of tasks, or attributes joined by plus signs: {', '.join(ATTRIBUTES)}",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        default=[],
        choices=[method.name for method in methods(2) if method.name != UNGUIDED],
        help="rows besides unguided and FreeDoM; all",
    )
    parser.add_argument("--steps", type=int, help="of the sampler; as many as there is time for")
    parser.add_argument(
        "--sets", type=int, help="condition sets of the tables; 100, of --quick fewer"
    )
    parser.add_argument("--studies", nargs="*", default=list(ABLATIONS), choices=list(ABLATIONS))
    parser.add_argument("--batch", type=int, default=BATCH, help="condition sets of one run")
    parser.add_argument("--workers", type=int, default=1, help="processes, for an accelerator")
    parser.add_argument("--folder", type=Path, help="of the results; output/tables")
    for role in ("guide", "judge"):
        parser.add_argument(
            f"--{role}",
            nargs="+",
            default=[],
            metavar="KIND=FILE",
            help=f"another file than the trained one, KIND one of {', '.join(KINDS)}"
            + ("; FILE dlib for landmarks and recognizer" if role == "judge" else ""),
        )
    options = parser.parse_args()
    _check(parser, options)
    judges = dict(pair.split("=", 1) for pair in options.judge)
    options.by_dlib = [(kind,) for kind, file in judges.items() if file == DLIB]
    judges = {kind: Path(file) for kind, file in judges.items() if file != DLIB}
    guides = {kind: Path(file) for kind, file in (pair.split("=", 1) for pair in options.guide)}
    options.guide_networks, options.judge_networks = Networks(False, guides), Networks(True, judges)
    return options


def digest(options: argparse.Namespace, attributes: Iterable[Attribute]) -> str:
    """Of everything that results depend on beside the code: networks and portraits."""
    attributes = list(attributes)
    files = [
        UNET_FILE,
        AUTOENCODER_FILE,
        *options.guide_networks.files_of(kind for a in attributes for kind in a.guided_by),
        *options.judge_networks.files_of(kind for a in attributes for kind in a.judged_by),
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
        if ATTRIBUTES[name].judged_by[:1] in options.by_dlib
        else ATTRIBUTES[name]
        for name in names
    }
    missing = [
        sentence
        for kind in kinds.values()
        for networks, needed in (
            (options.guide_networks, kind.guided_by),
            (options.judge_networks, kind.judged_by),
        )
        for sentence in map(networks.missing, needed)
        if sentence
    ]
    if missing:
        sys.exit("\n".join(dict.fromkeys(missing)))
    return {
        name: kind(options.guide_networks, options.judge_networks) for name, kind in kinds.items()
    }


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    for pair in (*options.guide, *options.judge):
        if pair.split("=", 1)[0] not in KINDS or "=" not in pair:
            parser.error(f"expected KIND=FILE with KIND one of {', '.join(KINDS)}, got {pair}")
    for task in options.tasks:
        unknown = set(attributes_of(task)) - set(ATTRIBUTES)
        if unknown:
            parser.error(
                f"task '{task}': expected {', '.join(TASKS)}, or attributes joined by plus signs "
                f"({', '.join(ATTRIBUTES)})"
            )
    for name in ("steps", "sets"):
        number = getattr(options, name)
        if number is not None and number < 1:
            parser.error(f"--{name}: expected 1 or more, got {number}")
    if options.studies and not options.quick:
        if ABLATION_TASK not in options.tasks:
            parser.error(
                f"the studies need the strengths of the task '{ABLATION_TASK}' among --tasks"
            )
        if options.methods and FAITHFUL not in options.methods:
            parser.error(f"the studies need the strength of '{FAITHFUL}' among --methods")
