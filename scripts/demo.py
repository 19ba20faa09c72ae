"""The main job: guide the demo model in the real host and show what it bought.

Posts ``workflows/api/demo.json`` to a headless server, with several pictures at once: a prompt, the
layout of one portrait and the identity of another. Leaves in ``output/demo``: one labeled sheet
(conditions, prompt alone, FreeDoM, Z-Magic), each picture by itself, energy curves, and
``report.json`` with the energies, the cosines between the conditions' gradients, the cost, and what
evaluators see that never guide. Run it with ``make demo``.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from api_client import Server, WorkflowError, running_server
from headless import available_device
from host_server import environment
from packages import say

__all__ = ["compared", "evaluated", "every_energy_lower", "main"]

PACK = Path(__file__).resolve().parents[1]
OUTPUT = PACK / "output" / "demo"
WORKFLOW = PACK / "workflows" / "api" / "demo.json"
SEED, PICTURES = 1, 3
SECONDS_BETWEEN_STEPS = 5.0  # that are told
PLAIN, OURS = "prompt alone", "Z-Magic"
VERDICT = "verdict.json"  # by lab/demo_verdict.py


def main() -> int:
    """Run the demo.

    The exit status is 0 when Z-Magic lowered every energy of every picture, and evaluators agree.
    """
    started = time.monotonic()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    log = OUTPUT / "server.log"
    say(f"starting ComfyUI's server; what it prints goes to {log}")
    try:
        with running_server(OUTPUT, log, cpu=available_device() == "cpu") as server:
            runs = compared(server, OUTPUT)
        say("asking evaluators that never guide")
        verdict = evaluated(OUTPUT)
    except (WorkflowError, OSError, RuntimeError) as error:
        say(f"the demo stopped: {error}")
        return 1
    lower = every_energy_lower(runs)
    report = {
        "seed": SEED,
        "pictures": PICTURES,
        "seconds": round(time.monotonic() - started, 1),
        "runs": runs,
        "every_energy_lower_than_prompt_alone": lower,
        "evaluators": verdict,
    }
    (OUTPUT / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    _print(report)
    return 0 if lower and verdict["agrees"] else 1


def compared(
    server: Server, output: Path, *, pictures: int = PICTURES, steps: int | None = None
) -> dict:
    """The summary of the comparison.

    ``sheet.png``, ``curves.png`` and each picture, such as ``Z-Magic_1.png``, are in ``output``.

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
        _rename(output, image, kind)
    (summary,) = outputs[by_title["Summary"]]["text"]
    runs = json.loads(summary)
    for run in runs:
        name = run.replace(" ", "_")
        for old in output.glob(f"{name}_*.png"):  # there may have been more of them
            old.unlink()
        for number, image in enumerate(outputs[by_title[f"Save {run}"]]["images"], 1):
            _rename(output, image, f"{name}_{number}")
    return runs


def _rename(output: Path, image: dict, name: str) -> None:
    """Give a picture that the host saved a name without the host's number."""
    (output / image["subfolder"] / image["filename"]).replace(output / f"{name}.png")


def evaluated(output: Path) -> dict:
    """What evaluators see in the pictures in ``output``, as ``lab.demo_verdict`` describes it.

    Raises:
        RuntimeError: they did not come to an end; the message has what they printed last.
    """
    file = output / VERDICT
    file.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "lab.demo_verdict", str(output)],
        cwd=PACK,
        env=environment(),
        capture_output=True,
        text=True,
    )
    if not file.is_file():
        raise RuntimeError(f"the evaluators stopped: {done.stderr.strip()[-500:]}")
    return json.loads(file.read_text(encoding="utf-8"))


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
    """Return whether Z-Magic ended below the prompt alone, of the same noise, in each condition."""
    ours, plain = (runs[name]["final"] for name in (OURS, PLAIN))
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
    verdict, said = report["evaluators"], {True: "yes", False: "NO"}
    print(
        "as evaluators see it that never guide (higher is better; hair color and the like: above 0 "
        "as the prompt has it)"
    )
    for name in report["runs"]:
        seen = {what: verdict[what][name] for what in ("identity", "layout")}
        answers = verdict["prompt"][name]
        seen |= {question: [each[question] for each in answers] for question in answers[0]}
        for what, values in seen.items():
            each = "  ".join(f"{value:+.3f}" for value in values)
            print(f"  {name:12s} {what:14s} {each}")
    lower = said[report["every_energy_lower_than_prompt_alone"]]
    print(f"every energy lower than of the prompt alone in all {report['pictures']}: {lower}")
    print(f"evaluators see it, too: {said[verdict['agrees']]}")
    print(f"{report['seconds']} s; see {OUTPUT}")


if __name__ == "__main__":
    raise SystemExit(main())
