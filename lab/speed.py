"""Time what guidance costs on models that people have, as multiples of plain sampling.

    python -m lab.speed    # a few minutes on an accelerator or on idle CPU cores

The host's own models and decoders and the attribute networks that people have, at real sizes, with
random weights: what a step takes depends on the shapes alone. All of it is timed in one process, on
the CPU by the time that the process had there: read the ratios. A picture is its sampler steps and
what a run does once; one step of each kind is made, and weighed by how often a picture of 20 steps
has it. *FreeDoM, one backward* is FreeDoM as its own code does it: one backward of the sum of all
energies. ``python -m lab.cost`` counts the same without a clock.
"""

import argparse
import json
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

from scripts.headless import available_device, load_host, load_pack

# Read when torch is loaded: threads that wait for others shall sleep, and take no time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
load_pack()
ON_CPU = available_device() == "cpu"
load_host(cpu=ON_CPU)

import torch  # noqa: E402

from zmagic.guidance.settings import PRESETS  # noqa: E402
from zmagic.host.decoders import DECODERS  # noqa: E402

from .command_line import described  # noqa: E402
from .network_conditions import network_conditions  # noqa: E402
from .random_models import ARCHITECTURES  # noqa: E402
from .sampling import real_subject  # noqa: E402
from .speed_report import BASELINE, rows_of, table  # noqa: E402
from .step_times import Takes, Timer, guided_times, plain_times  # noqa: E402

ROWS = {BASELINE: replace(PRESETS["FreeDoM baseline"], gradient_path="image"), **PRESETS}
KINDS = [name for name in DECODERS if name != "auto"]


def main() -> None:
    options = arguments()
    architecture = next(kind for kind in ARCHITECTURES if kind.title == options.model)
    dtype = getattr(torch, options.dtype) if options.dtype else None
    subject = real_subject(architecture, options.side, dtype)
    conditions = network_conditions(options.conditions)
    # Other work on this machine slows a process down, but does not give it more to do.
    clock = time.process_time if ON_CPU else time.perf_counter
    timer = Timer(warm_up=not ON_CPU, repeats=options.repeats, clock=clock)
    plain = plain_times(subject, timer)
    print(f"{architecture.title}, {subject.side} px, n = {options.conditions}", flush=True)
    print(f"plain: {plain.step:.3g} s a step", flush=True)
    taken: dict[tuple[str, str], Takes] = {}
    for decoder in options.decoders:
        for name in (BASELINE, *options.presets):
            made = guided_times(subject, decoder, ROWS[name], conditions, plain, timer)
            taken[name, decoder] = made
            seconds = f"{made.step:.3g} s a step, {made.picture:.3g} s a picture"
            print("; but: ".join((f"{name}, {decoder}: {seconds}", *made.warnings)), flush=True)
    rows = rows_of(plain, taken)
    print("\n".join(["", *table(rows)]))
    if options.json:
        content = {
            "model": architecture.title,
            "side": subject.side,
            "conditions": options.conditions,
            "plain": asdict(plain),
            "guided": rows,
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def arguments() -> argparse.Namespace:
    parser = described("speed", __doc__)
    parser.add_argument(
        "--model",
        choices=[kind.title for kind in ARCHITECTURES],
        default="SD1.5",
        help="Model that is guided. Default: %(default)s.",
    )
    parser.add_argument(
        "--presets",
        nargs="+",
        choices=list(PRESETS),
        default=list(PRESETS)[: 1 if ON_CPU else None],
        help=f"Presets that guide, beside '{BASELINE}'. Default: all; on the CPU the default one.",
    )
    parser.add_argument(
        "--decoders",
        nargs="+",
        choices=KINDS,
        default=KINDS,
        help="Decoders for guidance. Default: all.",
    )
    parser.add_argument(
        "--conditions",
        type=int,
        choices=range(1, 6),
        default=3,
        help="Number of conditions, which take the attribute networks in turn. "
        "Default: %(default)s.",
    )
    parser.add_argument(
        "--side",
        type=int,
        default=256 if ON_CPU else None,
        help="Side of the picture in pixels, a multiple of 64. Default: that of the model; on the "
        "CPU 256.",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=1 if ON_CPU else 3,
        help="How often each step is made; the fastest one counts. Default: 3, on the CPU 1.",
    )
    parser.add_argument(
        "--dtype",
        choices=["float32", "float16", "bfloat16"],
        default="float32" if ON_CPU else None,
        help="Precision of the model. Default: the one that people use; on the CPU float32.",
    )
    parser.add_argument(
        "--json", type=Path, help="File that gets the times, too. Default: none is written."
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
