"""Render synthetic portraits with exact labels.

    python -m lab.training.portraits --out FOLDER --identities 1000 --pictures 4 --seed 1

Run it again after an interruption: what exists is skipped. Portraits are made person by person.
`--variant llvm_ad_rgb` is twice as fast as the default and needs LLVM 16 or newer
(environment variable DRJIT_LIBLLVM_PATH; with the LLVM 14 and 15 of Debian 12 Mitsuba aborts). The
two variants differ in their noise, so one data set should be made with one of them.
"""

import argparse
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from ...command_line import described
from .dataset import append_labels, finished, picture_id, sort_labels, wanted
from .worker import Job, make_all

PROGRESS_EVERY = 20
PACKAGES = ("anny", "mitsuba")


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = described("training.portraits", __doc__)
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="Folder of the portraits; those that are in it are not made again.",
    )
    numbers = {
        "--identities": (1000, "Number of people."),
        "--first": (0, "Number of the first person: people have numbers from it on."),
        "--pictures": (4, "Portraits of each person."),
        "--seed": (1, "Seed of everything that is drawn at random."),
        "--size": (128, "Side of a portrait in pixels."),
        "--samples": (4, "Light paths per quarter of a pixel: fewer are faster and leave noise."),
        "--workers": (1, "Processes, of one thread and 1.6 GB each."),
    }
    for option, (default, text) in numbers.items():
        parser.add_argument(option, type=int, default=default, help=f"{text} Default: {default}.")
    parser.add_argument(
        "--variant",
        default="scalar_rgb",
        help="Variant of Mitsuba that renders: scalar_rgb runs everywhere, llvm_ad_rgb is twice as "
        "fast and needs LLVM 16 or newer. Default: %(default)s.",
    )
    return parser.parse_args()


def main() -> None:
    """Makes the portraits that the folder lacks."""
    arguments = parse()
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        sys.exit(
            f"portraits need the Python package {' and '.join(missing)}: "
            "run 'python -m pip install --no-deps -r lab/training/requirements.txt'"
        )
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    done = finished(out)
    every = wanted(arguments.identities, arguments.pictures, arguments.first)
    tasks = [task for task in every if picture_id(*task) not in done]
    print(f"{len(done)} pictures exist, {len(tasks)} to make", flush=True)
    if not tasks:
        return
    job = Job(out, arguments.seed, arguments.size, arguments.samples, arguments.variant)
    started = time.monotonic()
    for number, labels in enumerate(make_all(job, tasks, arguments.workers), start=1):
        append_labels(out, labels)
        if number % PROGRESS_EVERY == 0 or number == len(tasks):
            each = (time.monotonic() - started) / number
            print(f"{number}/{len(tasks)} {labels['id']} {each:.2f} s each", flush=True)
    sort_labels(out)


if __name__ == "__main__":
    main()
