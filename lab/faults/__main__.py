"""Break hosts, workers, a disk and the scheduler under a sweep, and say whether it lost anything.

    python -m lab.faults --variants 200

Every part runs the same variants of a demo graph, and compares them bit for bit with those that one
host makes alone. Times are ratios to that host's; on two cores several hosts are no faster.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from ..command_line import described
from . import PACK, cluster, hosts
from .sweeping import Work, demo, plain
from .verdict import Pace, compared, pace

__all__ = ["main"]

ALONE = "alone"
# Parts by the folders of their sweeps. Those that break something return what.
TIMED = {"three-hosts": hosts.undisturbed, "cluster": cluster.undisturbed}
BREAKING = {"broken-hosts": hosts.broken, "broken-cluster": cluster.broken}
PARTS = (*TIMED, *BREAKING)


def main() -> int:
    """0 when nothing was lost, double or different."""
    options = _options()
    folder: Path = options.folder
    work = (plain if options.plain else demo)(options.variants)
    hosts.alone(folder / ALONE, work)
    alone = pace(folder / ALONE / "sweep", 1)
    report = {"variants": options.variants, ALONE: asdict(alone), "parts": {}}
    print(f"one host alone: {alone.seconds:.1f} s a variant", flush=True)
    for part in options.parts:
        report["parts"][part] = found = _carried_out(part, work, options, alone)
        print(f"{part}: {'; '.join(map(str, found['told']))}", flush=True)
    (folder / "faults.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    return int(not all(found["good"] for found in report["parts"].values()))


def _carried_out(part: str, work: Work, options: argparse.Namespace, alone: Pace) -> dict:
    """What came of a part; ``told`` is for people."""
    folder = options.folder / part
    if part in TIMED:
        TIMED[part](folder, work, options.workers)
        told = []
    else:
        told = BREAKING[part](folder, work, options.workers)
    verdict = compared(folder / "sweep", options.folder / ALONE / "sweep")
    numbers = asdict(verdict)
    if part in TIMED:
        reached = pace(folder / "sweep", options.workers)
        told.append(f"{alone.seconds / reached.seconds:.2f} times the throughput of one")
        told.append(f"{reached.overhead:.2f} s a variant beside the host's own time")
        numbers |= asdict(reached)
    kinds = ("lost", "double", "different")
    told.append(", ".join(f"{numbers[kind]} {kind}" for kind in kinds))
    return {**numbers, "good": verdict.good, "told": told}


def _options() -> argparse.Namespace:
    parser = described("faults", __doc__)
    parser.add_argument(
        "--variants", type=int, default=200, help="Variants of each part. Default: %(default)s."
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=3,
        help="Hosts of each part, with a worker each in a cluster. Default: %(default)s.",
    )
    parser.add_argument(
        "--parts",
        nargs="+",
        default=list(PARTS),
        choices=PARTS,
        metavar="PART",
        help=f"What to do, of {', '.join(PARTS)}. Default: all.",
    )
    parser.add_argument(
        "--plain",
        action="store_true",
        help="Make pictures of one color by stock nodes, which take no time.",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=PACK / "output" / "faults",
        help="Folder of pictures, logs and faults.json. Default: output/faults in the pack.",
    )
    options = parser.parse_args()
    if options.variants < 6 or options.workers < 2:
        parser.error("expected 6 variants or more, and 2 workers or more")
    if options.folder.exists() and any(options.folder.iterdir()):
        parser.error(f"{options.folder} holds an earlier run: remove it, or choose another")
    return options


if __name__ == "__main__":
    sys.exit(main())
