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

from .dataset import append_labels, finished, picture_id, sort_labels, wanted
from .worker import Job, make_all

PROGRESS_EVERY = 20
PACKAGES = ("anny", "mitsuba")


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--identities", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first identity")
    parser.add_argument("--pictures", type=int, default=4, help="pictures per identity")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", type=int, default=128, help="pixels per side")
    parser.add_argument("--samples", type=int, default=4, help="paths per quarter pixel")
    parser.add_argument("--variant", default="scalar_rgb", help="Mitsuba's variant")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
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
