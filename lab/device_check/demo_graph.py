"""``make demo``'s graph in the real server: does it end, and are the pictures there?"""

import time
from collections.abc import Iterator, Sequence

from PIL import Image

from .findings import FAILED, PASSED, Finding, Setup
from .server import demo, started

PICTURES, STEPS = {"real": 3, "small": 1}, {"real": None, "small": 2}


def run(setup: Setup) -> Iterator[Finding]:
    """Yield one finding."""
    folder = setup.folder / "demo"
    began = time.monotonic()
    with started(setup, folder) as server:
        ready = time.monotonic()
        runs = demo.compared(server, folder, pictures=PICTURES[setup.size], steps=STEPS[setup.size])
    seconds = time.monotonic() - ready
    flat = [name for name in ("sheet", "curves") if _is_flat(folder / f"{name}.png")]
    figure = f"finished in {seconds:.0f} s, sheet and curves are there"
    good = not flat
    if not setup.small:  # the few steps of the small size promise nothing about energies
        lower = demo.every_energy_lower(runs)
        figure += f", {'every' if lower else 'NOT every'} energy below that of the prompt alone"
        good = good and lower
    if flat:
        figure += f"; {' and '.join(flat)} without content"
    values = {"seconds": seconds, "start_seconds": ready - began, "runs": runs}
    yield Finding("demo", PASSED if good else FAILED, figure, values)


def summary(findings: Sequence[Finding]) -> str:
    return "; ".join(finding.figure for finding in findings)


def _is_flat(file) -> bool:
    with Image.open(file) as picture:
        return all(low == high for low, high in picture.convert("RGB").getextrema())
