"""24 variants of a demo graph on two ComfyUIs of this machine: ``make sweep-demo``."""

import json
import sys
import tempfile
from pathlib import Path

import sweep
from packages import say
from sweeps.local_hosts import local_hosts

__all__ = ["main"]

PACK = Path(__file__).resolve().parents[1]
GRAPH = PACK / "workflows" / "api" / "text_and_identity_demo.json"
OUTPUT = PACK / "output" / "sweep-demo"
PROMPTS = (
    "a photo of a young woman smiling, wearing green",
    "a photo of an old man with a beard, wearing blue",
)
VARIED = (
    f"Prompt.text={json.dumps(PROMPTS)}",
    "Z-Magic Settings.strength=0.1,0.2,0.4",
    "Z-Magic Sampler.steps=6",
)
SEEDS, HOSTS = "4", 2


def main() -> int:
    """Run the sweep; what is in its folder from an earlier one is not made again."""
    say(f"starting {HOSTS} ComfyUIs on this machine")
    with (
        tempfile.TemporaryDirectory(prefix="z-magic-") as folder,
        local_hosts(HOSTS, Path(folder)) as hosts,
    ):
        called = [str(GRAPH), "--seeds", SEEDS, "--folder", str(OUTPUT)]
        called += [part for each in VARIED for part in ("--vary", each)]
        return sweep.main([*called, "--hosts", ",".join(host.address for host in hosts)])


if __name__ == "__main__":
    sys.exit(main())
