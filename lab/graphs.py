"""Ask an evaluator whether the example graphs show what their prompts say.

Runs every graph of the demo model that has a text, as it ships, in the real server. The CLIP of the
evaluators, which never guides, is asked about each word of the prompt that has contraries: is the
hair rather red than black, brown, blond or gray? The exit status is 0 if every answer is the
prompt's.

    python -m lab.graphs NAME --seeds 8 --strengths 0.2 0.3 0.4   # looks for better settings
"""

import argparse
import copy
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from scripts.headless import available_device

from .networks import Networks  # first: it brings the host and the pack

# isort: split
from zmagic.host.demo_model import load_photograph
from zmagic.lab.training.captions import QUESTIONS

PACK = Path(__file__).resolve().parents[1]
WORKFLOWS = PACK / "workflows"

# What a prompt may say, and the answer to which question that is.
SAYINGS = {
    "hair color": r"(\w+) hair\b",
    "clothing color": r"\bwearing (\w+)",
    "gender": r"\b(man|woman)\b",
    "beard": r"\b(with a beard)\b",
    "smile": r"\b(smiling)\b",
}
WITHOUT_CONTRARY = {"with a beard": True, "smiling": True}  # of the values that are not words

SAVING = ("SaveImage", "PreviewImage", "PreviewAny")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lab.graphs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names",
        nargs="*",
        help="Graphs, as they are called in workflows/api. Default: all that have a text.",
    )
    parser.add_argument(
        "--seeds", type=int, help="Try the seeds from 1 to this one, not the one that ships."
    )
    parser.add_argument(
        "--strengths",
        nargs="+",
        type=float,
        help="Try these strengths of the guidance, not the one that ships.",
    )
    options = parser.parse_args()
    tried = options.seeds, options.strengths
    with tempfile.TemporaryDirectory() as folder, _server(Path(folder)) as server:
        evaluator = Evaluator()
        verdicts = [
            _report(name, variants(api(name), *tried), evaluator, Path(folder), server)
            for name in options.names or graphs()
        ]
    return 0 if all(verdicts) else 1


def graphs() -> list[str]:
    """Names of the graphs that need no file of the user and have a text."""
    return [
        file.stem
        for file in sorted((WORKFLOWS / "api").glob("*.json"))
        if _inputs(api(file.stem), "ZMagicLoadDemo") is not None and prompt_of(api(file.stem))
    ]


def api(name: str) -> dict:
    return json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))


def prompt_of(graph: dict) -> str | None:
    """Return the prompt of the graph's Text Energy, None without one."""
    inputs = _inputs(graph, "ZMagicText")
    return inputs and inputs["prompt"]


def variants(
    graph: dict, seeds: int | None, strengths: list[float] | None
) -> Iterator[tuple[str, dict]]:
    """The graph with other seeds and strengths; as it is where none are given."""
    sampler = _inputs(graph, "ZMagicSampler")
    for seed in range(1, seeds + 1) if seeds else [None]:
        for strength in strengths or [None]:
            changed = copy.deepcopy(graph)
            if seed is not None:
                source = sampler["seed"]
                linked = isinstance(source, list)
                for node in changed.values():
                    if node["class_type"] == "ZMagicSampler" and not linked:
                        node["inputs"]["seed"] = seed
                if linked:
                    changed[source[0]]["inputs"]["value"] = seed
            if strength is not None:
                changed[_guided(changed)["settings"][0]]["inputs"]["strength"] = strength
            yield f"seed {seed or 'as shipped'}, strength {strength or 'as shipped'}", changed


class Evaluator:
    """The CLIP that never guides."""

    def __init__(self):
        self.clip = Networks(evaluating=True).clip

    @torch.inference_mode()
    def margins(self, picture: torch.Tensor, prompt: str) -> dict[str, float]:
        """Return by how much ``picture [1, 3, H, W]`` fits each saying of the prompt.

        Each number is the cosine to the right prompt minus the largest one to a contrary; it is
        positive where the picture obeys.
        """
        seen = self.clip.image(self.clip.preprocessing(picture))
        return {
            question: self._margin(seen, QUESTIONS[question].prompts, value)
            for question, value in sayings(prompt).items()
        }

    def _margin(self, seen: torch.Tensor, prompts: dict, value: object) -> float:
        texts = self.clip.texts(list(prompts.values())).to(seen)
        cosines = torch.nn.functional.cosine_similarity(seen, texts).tolist()
        by_value = dict(zip(prompts, cosines, strict=True))
        return by_value.pop(value) - max(by_value.values())


def sayings(prompt: str) -> dict[str, object]:
    """Questions that the prompt answers, and its answers."""
    found = {question: re.search(pattern, prompt) for question, pattern in SAYINGS.items()}
    answers = {question: match[1] for question, match in found.items() if match}
    answers = {question: WITHOUT_CONTRARY.get(word, word) for question, word in answers.items()}
    return {q: value for q, value in answers.items() if value in QUESTIONS[q].prompts}


def _report(
    name: str, tried: Iterator[tuple[str, dict]], evaluator: Evaluator, folder: Path, server
) -> bool:
    """Print a line for each variant; return whether any obeys."""
    obeyed = False
    for settings, graph in tried:
        prompt = prompt_of(graph)
        picture = load_photograph(_saved(_only_guided(graph), folder, server))
        margins = evaluator.margins(picture.movedim(-1, 1), prompt)
        obeyed = obeyed or min(margins.values()) > 0.0
        answers = ", ".join(f"{q} {margin:+.3f}" for q, margin in margins.items())
        print(f"{name}, {settings}: {answers} ({prompt!r})", flush=True)
    return obeyed


def _saved(graph: dict, folder: Path, server) -> Path:
    """Run the graph; the first picture that it saves."""
    outputs = server.run(graph)
    saving = [i for i, node in graph.items() if node["class_type"] == "SaveImage"]
    image = outputs[saving[0]]["images"][0]
    return folder / image["subfolder"] / image["filename"]


def _only_guided(graph: dict) -> dict:
    """The graph with nothing saved but the picture of the sampler that is measured."""
    kept = {i: node for i, node in graph.items() if node["class_type"] not in SAVING}
    sampler = next(i for i, node in kept.items() if node["inputs"] is _guided(graph))
    decoder = next(
        i
        for i, node in kept.items()
        if node["class_type"] == "VAEDecode" and node["inputs"]["samples"][0] == sampler
    )
    save = {"images": [decoder, 0], "filename_prefix": "measured"}
    return kept | {"measured": {"class_type": "SaveImage", "inputs": save}}


def _guided(graph: dict) -> dict:
    """The inputs of the sampler that is measured: the last one, where a graph compares several."""
    return [n["inputs"] for n in graph.values() if n["class_type"] == "ZMagicSampler"][-1]


def _inputs(graph: dict, kind: str) -> dict | None:
    found = (node["inputs"] for node in graph.values() if node["class_type"] == kind)
    return next(found, None)


def _server(folder: Path):
    sys.path.append(str(PACK / "scripts"))
    from api_client import running_server

    return running_server(folder, folder / "server.log", cpu=available_device() == "cpu")


if __name__ == "__main__":
    raise SystemExit(main())
