"""The main job: guide the demo model in the real host and show what it bought.

Posts ``workflows/api/demo.json`` to a headless server, with several pictures at once: a text, the
layout of one portrait and the identity of another. Leaves in ``output/demo``: one labeled sheet
(conditions, unguided, FreeDoM, Z-Magic), energy curves, and ``report.json`` with the energies, the
cosines between the conditions' gradients and the cost. Run it with ``make demo``.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

from api_client import Server, WorkflowError, running_server
from headless import available_device
from packages import say

__all__ = ["compared", "every_energy_lower", "main"]

PACK = Path(__file__).resolve().parents[1]
OUTPUT = PACK / "output" / "demo"
WORKFLOW = PACK / "workflows" / "api" / "demo.json"
SEED, PICTURES = 1, 3
SECONDS_BETWEEN_STEPS = 5.0  # that are told
UNGUIDED, OURS = "unguided", "Z-Magic"


def main() -> int:
    """Run the demo; the exit status is 0 when Z-Magic lowered every energy of every picture."""
    started = time.monotonic()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    log = OUTPUT / "server.log"
    say(f"starting ComfyUI's server; what it prints goes to {log}")
    try:
        with running_server(OUTPUT, log, cpu=available_device() == "cpu") as server:
            runs = compared(server, OUTPUT)
    except (WorkflowError, OSError, RuntimeError) as error:
        say(f"the demo stopped: {error}")
        return 1
    verdict = every_energy_lower(runs)
    report = {
        "seed": SEED,
        "pictures": PICTURES,
        "seconds": round(time.monotonic() - started, 1),
        "runs": runs,
        "every_energy_lower_than_unguided": verdict,
    }
    (OUTPUT / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    _print(report)
    return 0 if verdict else 1


def compared(
    server: Server, output: Path, *, pictures: int = PICTURES, steps: int | None = None
) -> dict:
    """The summary of the comparison; ``sheet.png`` and ``curves.png`` are in ``output``.

    Args:
        server: saves its pictures in ``output``.
        pictures: number of pictures of each run.
        steps: steps of each run; None: as in the workflow.
    """
    workflow = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    by_title = {node["_meta"]["title"]: node_id for node_id, node in workflow.items()}
    for node in workflow.values():
        if node["class_type"] == "EmptyLatentImage":
            node["inputs"]["batch_size"] = pictures
        if node["class_type"] == "PrimitiveInt":  # the seed of all samplers
            node["inputs"]["value"] = SEED
        if node["class_type"] == "ZMagicSampler":
            node["inputs"]["steps"] = steps or node["inputs"]["steps"]
    outputs = server.run(workflow, listener=_narrator(workflow))
    for kind in ("sheet", "curves"):
        (image,) = outputs[by_title[f"Save {kind}"]]["images"]
        saved = output / image["subfolder"] / image["filename"]
        saved.replace(output / f"{kind}.png")  # the host numbers its files
    (summary,) = outputs[by_title["Summary"]]["text"]
    return json.loads(summary)


def _narrator(workflow: dict) -> Callable[[dict], None]:
    """Prints what the host is doing: every node, and every few seconds the step."""
    started, told = time.monotonic(), {"node": None, "at": 0.0}

    def tell(news: dict) -> None:
        now = time.monotonic()
        if news["node"] == told["node"] and now - told["at"] < SECONDS_BETWEEN_STEPS:
            return
        told.update(node=news["node"], at=now)
        title = workflow[news["node"]]["_meta"]["title"]
        step = f", step {news['value']} of {news['max']}" if "value" in news else ""
        say(f"{now - started:5.0f} s  {title}{step}")

    return tell


def every_energy_lower(runs: dict) -> bool:
    """Return whether Z-Magic ended below the unguided picture of its noise in each condition."""
    ours, plain = (runs[name]["final"] for name in (OURS, UNGUIDED))
    return all(
        after is not None and (before is None or after < before)  # None: not seen there
        for name in plain
        for after, before in zip(ours[name], plain[name], strict=True)
    )


def _print(report: dict) -> None:
    for name, run in report["runs"].items():
        print(name)
        for condition, values in run["final"].items():
            each = ("none" if value is None else f"{value:.4f}" for value in values)
            print(f"  {condition:14s} energy {'  '.join(each)}")
        for pair, cosine in run["cosines"].items():
            print(f"  {pair}: mean cosine {cosine:+.3f}")
        totals = run["totals"]
        forwards = totals["plain_denoiser_forwards"] + totals["forwards"].get("denoiser", 0)
        print(
            f"  {forwards} forwards, {totals['backwards'].get('denoiser', 0)} backwards of the "
            f"model, {totals['seconds']:.1f} s guided"
        )
    verdict = "yes" if report["every_energy_lower_than_unguided"] else "NO"
    print(f"every energy lower than unguided in all {report['pictures']} pictures: {verdict}")
    print(f"{report['seconds']} s; see {OUTPUT}")


if __name__ == "__main__":
    raise SystemExit(main())
