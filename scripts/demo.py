"""The main job: guide the demo model in the real host and show what it bought.

Posts ``workflows/api/demo.json`` to a headless server, once per seed, and leaves in
``output/demo``: one labelled sheet (unguided, FreeDoM, Z-Magic), the energy curves of each seed,
and ``report.json``. Run it with ``make demo``.
"""

import json
import time
from pathlib import Path

import torch
from api_client import Server, running_server
from PIL import Image

__all__ = ["main"]

PACK = Path(__file__).resolve().parents[1]
OUTPUT = PACK / "output" / "demo"
WORKFLOW = PACK / "workflows" / "api" / "demo.json"
SEEDS = (1, 2, 3, 4)
UNGUIDED, BASELINE, OURS = "unguided", "FreeDoM", "Z-Magic"


def main() -> int:
    """Run the demo; the exit status is 0 when Z-Magic lowered every energy on every seed."""
    started = time.monotonic()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    workflow = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    with running_server(OUTPUT, OUTPUT / "server.log", cpu=not _has_accelerator()) as server:
        runs = {seed: _run(server, workflow, seed) for seed in SEEDS}
    _stack([run["sheet"] for run in runs.values()], OUTPUT / "sheet.png")
    report = {
        "seconds": round(time.monotonic() - started, 1),
        "seeds": {seed: run["summary"] for seed, run in runs.items()},
    }
    report["every_energy_lower_than_unguided"] = all(
        lower for run in runs.values() for lower in _lower(run["summary"]).values()
    )
    (OUTPUT / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    _print(report)
    return 0 if report["every_energy_lower_than_unguided"] else 1


def _run(server: Server, workflow: dict, seed: int) -> dict:
    """One prompt: the paths of its sheet and curves, and the parsed summary."""
    workflow = json.loads(json.dumps(workflow))
    by_title = {node["_meta"]["title"]: node_id for node_id, node in workflow.items()}
    for node in workflow.values():
        if node["class_type"] == "ZMagicSampler":
            node["inputs"]["seed"] = seed
    for kind in ("sheet", "curves"):
        workflow[by_title[f"Save {kind}"]]["inputs"]["filename_prefix"] = f"{kind}_seed{seed}"
    outputs = server.run(workflow)

    def saved(kind: str) -> Path:
        (image,) = outputs[by_title[f"Save {kind}"]]["images"]
        plain = OUTPUT / f"{kind}_seed{seed}.png"  # the host numbers its files
        return (OUTPUT / image["subfolder"] / image["filename"]).replace(plain)

    (summary,) = outputs[by_title["Summary"]]["text"]
    return {"sheet": saved("sheet"), "curves": saved("curves"), "summary": json.loads(summary)}


def _has_accelerator() -> bool:
    return torch.cuda.is_available() or torch.backends.mps.is_available()


def _lower(summary: dict) -> dict[str, bool]:
    """For each condition, whether Z-Magic ended below the unguided image."""
    ours, plain = (summary[name]["final"] for name in (OURS, UNGUIDED))
    return {name: max(ours[name]) < min(plain[name]) for name in plain}


def _stack(files: list[Path], target: Path) -> None:
    """One sheet below the other."""
    sheets = [Image.open(file).convert("RGB") for file in files]
    size = (max(s.width for s in sheets), sum(s.height for s in sheets))
    whole = Image.new("RGB", size, "white")
    top = 0
    for sheet in sheets:
        whole.paste(sheet, (0, top))
        top += sheet.height
    whole.save(target)
    for sheet, file in zip(sheets, files, strict=True):
        sheet.close()
        file.unlink()


def _print(report: dict) -> None:
    for seed, summary in report["seeds"].items():
        print(f"seed {seed}")
        for name, run in summary.items():
            energies = "  ".join(f"{key} {values[0]:.4f}" for key, values in run["final"].items())
            totals = run["totals"]
            forwards = totals["plain_denoiser_forwards"] + totals["forwards"].get("denoiser", 0)
            cost = f"{forwards} forwards, {totals['backwards'].get('denoiser', 0)} backwards"
            print(f"  {name:10s} {energies}   ({cost}, {totals['seconds']:.1f} s guided)")
    verdict = "yes" if report["every_energy_lower_than_unguided"] else "NO"
    print(f"every energy lower than unguided on every seed: {verdict}")
    print(f"{report['seconds']} s; see {OUTPUT}")


if __name__ == "__main__":
    raise SystemExit(main())
