"""Check whether Z-Magic works on this device: a line for each part, and a file with everything."""

import argparse
import json
import time
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from scripts.headless import PACK, available_device, load_host, load_host_on, load_pack

from ..command_line import described
from .findings import PASSED, SKIPPED, Setup, write
from .machine import describe
from .processes import UNFINISHED, Outcome, carried_out

SIZES = ("real", "small")
TOTAL = 480.0  # seconds
LEAST = 5.0  # less is not worth starting a part


class Part(NamedTuple):
    """A part of the check.

    Args:
        module: in this package: ``run(setup)`` yields findings, ``summary(findings)`` is its line.
        seconds: its limit, real and small.
        host: how it needs the host: ``""`` in processes of its own, ``"exact"`` in single
            precision, ``"usual"`` as people have it.
        title: title of a model, for parts that take one.
    """

    module: str
    seconds: tuple[float, float]
    host: str = ""
    title: str = ""


PARTS = {
    "demo": Part("demo_graph", (90.0, 240.0)),
    "gradients": Part("gradients", (60.0, 120.0), "exact"),
    "host_tests": Part("host_tests", (150.0, 180.0)),
    "memory_modes": Part("memory_modes", (90.0, 240.0)),
    "step_sd15": Part("guided_steps", (60.0, 120.0), "usual", "SD1.5"),
    "step_sdxl": Part("guided_steps", (90.0, 120.0), "usual", "SDXL"),
    "step_flux": Part("guided_steps", (120.0, 120.0), "usual", "Flux"),
}


def main() -> int:
    """The exit status is 0 when nothing failed."""
    options = arguments()
    folder = Path(options.folder or PACK / "output" / "device_check").resolve()
    device = options.device
    setup = Setup(device, options.size, folder, options.seconds)
    if options.worker:
        work(options.worker, setup)
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    try:
        report = {"machine": describe(device), "size": options.size, "parts": {}}
    except FileNotFoundError as error:  # there is no ComfyUI
        print(error)
        return 1
    machine = report["machine"]
    print(
        f"{machine['name']} ({device}), torch {machine['torch']}, ComfyUI {machine['host']}; "
        f"size {options.size}, at most {options.seconds:.0f} s",
        flush=True,
    )
    began = time.monotonic()
    tables: list[str] = []
    for name in options.parts:
        left = options.seconds - (time.monotonic() - began)
        outcome, figure = one(name, setup, left)
        print(f"{name:13s} {outcome.verdict:14s} {figure}  [{outcome.seconds:.0f} s]", flush=True)
        report["parts"][name] = content(outcome, figure)
        report["seconds"] = time.monotonic() - began
        save(report, Path(options.json))
        if PARTS[name].title and not setup.small:
            module = import_module(f".{PARTS[name].module}", __package__)
            tables += ["", *module.table(PARTS[name].title, outcome.findings)]
    print("\n".join([*tables, f"{report['seconds']:.0f} s; all of it is in {options.json}"]))
    verdicts = {part["verdict"] for part in report["parts"].values()}
    return int(not verdicts <= {PASSED, SKIPPED, UNFINISHED})


def arguments() -> argparse.Namespace:
    parser = described("device_check", __doc__)
    here = available_device()
    parser.add_argument(
        "--device",
        default=here,
        help="Kind of device to check: cpu, or the accelerator that PyTorch finds, which is the "
        "default.",
    )
    parser.add_argument(
        "--size",
        choices=SIZES,
        help="Sizes of the models: as published (real) or small ones (small). Default: real, on "
        "the CPU small.",
    )
    parser.add_argument(
        "--parts",
        default=",".join(PARTS),
        help="Parts to carry out, separated by commas. Default: %(default)s.",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=TOTAL,
        help="Time limit for all parts together, in seconds. Default: %(default)g.",
    )
    parser.add_argument(
        "--json",
        default=str(PACK / "output" / "device_check.json"),
        help="File that gets every number. Default: output/device_check.json in the pack.",
    )
    parser.add_argument(
        "--folder",
        help="Folder for logs and pictures. Default: output/device_check in the pack.",
    )
    parser.add_argument("--worker", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device not in (here, "cpu"):
        parser.error(f"--device must be {here} or cpu on this machine, got {options.device}")
    options.size = options.size or ("small" if options.device == "cpu" else "real")
    options.parts = [name.strip() for name in options.parts.split(",")]
    unknown = [name for name in options.parts if name not in PARTS]
    if unknown:
        parser.error(f"--parts must be some of {', '.join(PARTS)}, got {', '.join(unknown)}")
    return options


def one(name: str, setup: Setup, left: float) -> tuple[Outcome, str]:
    """Run a part within the time that is left; return how it ended, and its line."""
    part = PARTS[name]
    limit = min(left, part.seconds[SIZES.index(setup.size)])
    if limit < LEAST:
        return Outcome(UNFINISHED, 0.0, []), "the time for everything was over"
    outcome = carried_out(name, Setup(setup.device, setup.size, setup.folder, limit))
    module = import_module(f".{part.module}", __package__)
    figure = module.summary(outcome.findings) if outcome.findings else ""
    if outcome.verdict == UNFINISHED:
        figure = f"{figure}; stopped after its {limit:.0f} s".lstrip("; ")
    if outcome.end:
        figure = f"{figure}; {outcome.end.splitlines()[-1]}".lstrip("; ")
    return outcome, figure


def work(name: str, setup: Setup) -> None:
    """Carry out a part in this process, whose findings go to a file."""
    part = PARTS[name]
    load_pack()
    if part.host == "exact":
        load_host_on(setup.device)
    elif part.host:
        load_host(cpu=setup.cpu)
    module = import_module(f".{part.module}", __package__)
    run = partial(module.run, title=part.title) if part.title else module.run
    write(run(setup), setup.folder / f"{name}.jsonl")


def content(outcome: Outcome, figure: str) -> dict:
    """A part as it stands in the JSON."""
    return {
        "verdict": outcome.verdict,
        "figure": figure,
        "seconds": round(outcome.seconds, 1),
        "findings": [
            {"name": f.name, "verdict": f.verdict, "figure": f.figure, **f.values}
            for f in outcome.findings
        ],
        "end": outcome.end,
    }


def save(report: dict, file: Path) -> None:
    """Write the report, after every part: nothing is lost if the rest does not come."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
