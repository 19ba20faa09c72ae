"""Make many variants of a graph on several running ComfyUIs, and a sheet and a table of them.

    python scripts/sweep.py graph.json --vary "Text Energy.prompt=@prompts.txt" --seeds 16 \\
        --hosts http://a:8188,http://b:8188

The graph is in API format. Stop it at any time: the same command goes on, and makes no picture
twice. docs/many_machines.md has the rest.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from dask_cluster import ClusterError, checked_scheduler
from filelock import FileLock, Timeout
from packages import say
from sweeps.on_hosts import SweepStoppedError, made_on_hosts
from sweeps.runs import Failed, Made
from sweeps.store import SweepStore
from sweeps.variations import Variant, read_graph, seeds_of, variants_of, variation
from tqdm import tqdm

__all__ = ["main", "parser"]

PACK = Path(__file__).resolve().parents[1]
# Seconds without progress. Loading a large model tells none.
PATIENCE = 600.0
TRIES = 3
# When so many variants have failed and none is made, the graph is wrong rather than they.
HOPELESS = 3
SHOWN = 5  # failures that are printed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep; 0 when every variant is made, 1 when some are not, 2 for a wrong call."""
    options = parser().parse_args(arguments)
    try:
        variants = _variants(options)
        folder = options.folder or PACK / "output" / "sweeps" / options.graph.stem
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", blocking=False):
            return _swept(variants, SweepStore(folder), options)
    except Timeout:
        return _told(f"another sweep writes to {folder}; wait for it, or choose another --folder")
    except (ValueError, OSError, ClusterError) as error:
        return _told(str(error))


def _swept(variants: Sequence[Variant], store: SweepStore, options: argparse.Namespace) -> int:
    left = [variant for variant in variants if variant not in store]
    done = len(variants) - len(left)
    say(f"{len(variants)} variants, {done} of them made already; results: {store.folder}")
    failures: list[Failed] = []
    stopped = ""
    try:
        _make(left, store, options, failures)
    except KeyboardInterrupt:
        stopped = "interrupted"
    except OSError as error:  # of this disk: those of the hosts are failures
        stopped = f"cannot keep a picture: {error}"
    except (SweepStoppedError, ClusterError) as error:
        stopped = str(error)
    made = sum(variant in store for variant in variants)
    if made:
        _write_results(store, variants)
    for failed in failures[:SHOWN]:
        say(f"not made: {_named(failed.variant)}: {failed.reason} ({failed.host})")
    if stopped:
        say(f"stopped: {stopped}")
    say(
        f"{made} of {len(variants)} variants are made"
        + "; the same command goes on" * (made < len(variants))
    )
    return int(made < len(variants))


def _write_results(store: SweepStore, variants: Sequence[Variant]) -> None:
    from sweeps.results import write_sheets, write_table  # with PyTorch, which nothing else needs

    try:
        write_table(store, variants, store.folder / "table.csv")
        sheets = write_sheets(store, variants, store.folder)
    except OSError as error:
        say(f"no table and no sheets: {error}")
        return
    say(f"{store.folder / 'table.csv'}; {', '.join(sheet.name for sheet in sheets)}")


def _make(
    left: Sequence[Variant],
    store: SweepStore,
    options: argparse.Namespace,
    failures: list[Failed],
) -> None:
    if not left:
        return
    added = 0
    with (
        tqdm(total=len(left), unit="variant", smoothing=0.1) as bar,
        closing(_outcomes(left, options, partial(bar.write, file=sys.stderr))) as outcomes,
    ):
        for outcome in outcomes:
            if isinstance(outcome, Failed):
                failures.append(outcome)
            else:
                added += store.add(outcome)
            bar.update()
            if len(failures) >= HOPELESS and not added:
                raise SweepStoppedError(f"the first {HOPELESS} variants failed")


def _outcomes(
    left: Sequence[Variant], options: argparse.Namespace, tell: Callable[[str], None]
) -> Iterator[Made | Failed]:
    limits = options.patience, options.tries
    if options.hosts:
        return made_on_hosts(left, options.hosts, *limits, tell)
    from sweeps.on_cluster import made_on_cluster  # Dask is optional

    return made_on_cluster(left, options.scheduler, *limits, tell)


def _variants(options: argparse.Namespace) -> list[Variant]:
    graph = read_graph(options.graph)
    variations = [variation(graph, text) for text in options.vary]
    return variants_of(graph, variations, seeds_of(options.seeds) if options.seeds else ())


def _named(variant: Variant) -> str:
    return ", ".join(f"{name}={value}" for name, value in variant.chosen.items()) or "the graph"


def _told(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 2


def _addresses(text: str) -> list[str]:
    found = [address.strip() for address in text.split(",") if address.strip()]
    if not found or not all(each.startswith(("http://", "https://")) for each in found):
        raise argparse.ArgumentTypeError(f"expected http://HOST:PORT,... got '{text}'")
    return found


def _scheduler(text: str) -> str:
    try:
        return checked_scheduler(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _positive(text: str) -> float:
    number = float(text)
    if not number > 0.0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return number


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    found.add_argument("graph", type=Path, help="Graph in API format.")
    found.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="NODE.INPUT=VALUES",
        help="Values for an input; of several, all combinations are made. NODE is a node's title, "
        "class or id; VALUES is @FILE with a value a line, a JSON list, or values between commas.",
    )
    found.add_argument(
        "--seeds",
        metavar="N",
        help="Number of seeds for each combination, counted from that of the graph; or with "
        "commas what is added to it, such as 0,5,9.",
    )
    where = found.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--hosts", type=_addresses, metavar="URL,...", help="Addresses of running ComfyUIs."
    )
    where.add_argument(
        "--scheduler",
        type=_scheduler,
        metavar="ADDRESS",
        help="A Dask scheduler, tcp://HOST:8786, or local:N for N workers on this machine. Each "
        "worker starts a ComfyUI, unless COMFYUI_URL in its environment is the address of one.",
    )
    found.add_argument(
        "--folder",
        type=Path,
        help="Folder of the results. Default: output/sweeps in the pack, by the graph's name.",
    )
    found.add_argument(
        "--patience",
        type=_positive,
        default=PATIENCE,
        help="Seconds without progress after which a ComfyUI is left. Default: %(default)g.",
    )
    found.add_argument(
        "--tries",
        type=int,
        default=TRIES,
        help="How often a variant is tried, on another ComfyUI where there is one. "
        "Default: %(default)s.",
    )
    return found


if __name__ == "__main__":
    sys.exit(main())
