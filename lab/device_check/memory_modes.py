"""A guided picture in the host's memory modes: the same as with everything on the device?

How much may differ is said by the picture: a tenth of what guidance itself changes in it.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from scripts.headless import PACK, host_path

from .findings import FAILED, PASSED, SKIPPED, Finding, Setup, counted
from .server import host_server, started

WORKFLOW = PACK / "workflows" / "api" / "ksampler.json"
STEPS = {"real": 6, "small": 2}
SHARE = 0.1
DYNAMIC = "DynamicVRAM support detected and enabled"


@dataclass(frozen=True)
class Mode:
    """A way to start the host.

    Args:
        name: name of the mode, as people call it.
        arguments: options of ComfyUI's command line.
        everywhere: also where there is only main memory.
        sign: what the host's log says where the mode is really on; "" if nothing.
    """

    name: str
    arguments: tuple[str, ...]
    everywhere: bool = False
    sign: str = ""


# More than any card has, so that the host has to leave the weights outside.
FULL = ("--reserve-vram", "1000")
MODES = (
    Mode("--lowvram", ("--lowvram", "--disable-dynamic-vram", *FULL)),
    Mode("--novram", ("--novram",)),
    Mode("dynamic memory", (), sign=DYNAMIC),
    Mode("--disable-smart-memory", ("--disable-smart-memory",), everywhere=True),
)
RESIDENT = ("--highvram",)  # what the modes are compared with


def run(setup: Setup) -> Iterator[Finding]:
    """Yield a finding for each mode."""
    folder = setup.folder / "memory"
    steps = STEPS[setup.size]
    with started(setup, folder / "resident", () if setup.cpu else RESIDENT) as server:
        plain = _picture(server, folder / "resident", steps, guided=False)
        resident = _picture(server, folder / "resident", steps, guided=True)
    effect = float(np.abs(resident - plain).mean())
    for number, mode in enumerate(MODES):
        if setup.cpu and not mode.everywhere:
            reason = "there is no other memory than the main one to leave weights in"
            yield Finding(mode.name, SKIPPED, reason)
            continue
        yield _compared(setup, mode, folder / str(number), steps, resident, effect)


def summary(findings: Sequence[Finding]) -> str:
    def worst(passed: Sequence[Finding]) -> str:
        return max(passed, key=lambda f: f.values["difference"]).figure

    return counted(findings, worst)


def _compared(
    setup: Setup, mode: Mode, folder: Path, steps: int, resident: np.ndarray, effect: float
) -> Finding:
    host = host_path()
    known = [
        argument
        for argument in mode.arguments
        if not argument.startswith("--") or host_server.knows_argument(host, argument)
    ]
    if mode.arguments[:1] != tuple(known[:1]):
        return Finding(mode.name, SKIPPED, "this version of the host does not have it")
    with started(setup, folder, known) as server:
        picture = _picture(server, folder, steps, guided=True)
    log = (folder / "server.log").read_text(encoding="utf-8", errors="replace")
    if mode.sign and mode.sign not in log:
        return Finding(mode.name, SKIPPED, "the host did not switch it on here")
    difference = float(np.abs(picture - resident).mean())
    good = np.isfinite(difference) and difference <= SHARE * effect
    figure = f"differs by {difference:.2f} of 255 where guidance changes {effect:.2f}"
    values = {"difference": difference, "effect": effect, "arguments": known}
    return Finding(mode.name, PASSED if good else FAILED, figure, values)


def _picture(server, folder: Path, steps: int, *, guided: bool) -> np.ndarray:
    """Return a picture ``[H, W, 3]`` from 0 to 255."""
    nodes = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    (sampler,) = (n["inputs"] for n in nodes.values() if n["class_type"] == "KSampler")
    sampler["steps"] = steps
    if not guided:
        sampler["model"] = nodes[sampler["model"][0]]["inputs"]["model"]
    outputs = server.run(nodes)
    ((image,),) = (output["images"] for output in outputs.values() if "images" in output)
    with Image.open(folder / image["subfolder"] / image["filename"]) as picture:
        return np.asarray(picture.convert("RGB"), dtype=np.float64)
