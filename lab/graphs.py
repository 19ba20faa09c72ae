"""Ask an evaluator whether the example graphs show what their prompts say.

Runs every graph of the demo model as it ships in the real server. The CLIP of the evaluators, which
never guides, is asked about each word of the prompt and of Text Energy that has contraries: is the
hair rather red than black, brown, blond or grey? The exit status is 0 if every answer is theirs.

    python -m lab.graphs NAME --seeds 8 --strengths 0.2 0.3 0.4   # looks for better settings
"""

import argparse
import copy
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
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
    "clothing color": r"\bwearing (?!glasses\b|a\b)(\w+)",
    "gender": r"\b(man|woman)\b",
    "beard": r"\b(with a beard)\b",
    "glasses": r"\b(wearing glasses)\b",
    "smile": r"\b(?<!not )(smiling)\b",
}
# Of the values that are not words.
WITHOUT_CONTRARY = {"with a beard": True, "wearing glasses": True, "smiling": True}

SAVING = ("SaveImage", "PreviewImage", "PreviewAny")
SEEDS = {"ZMagicSampler": "seed", "KSampler": "seed", "RandomNoise": "noise_seed"}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lab.graphs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names",
        nargs="*",
        help="Graphs, as they are called in workflows/api. Default: all of the demo model.",
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
    """Names of the graphs that need no file of the user."""
    names = [file.stem for file in sorted((WORKFLOWS / "api").glob("*.json"))]
    return [name for name in names if inputs_of(api(name), "ZMagicLoadDemo")]


def api(name: str) -> dict:
    return json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))


def prompts_of(graph: dict) -> list[str]:
    """What the graph asks for in words: the prompt of its last sampler, and its Text Energy's."""
    told = [node["inputs"]["positive"] for node in graph.values() if "positive" in node["inputs"]]
    prompt = graph[told[-1][0]]["inputs"]["text"]
    return [prompt, *(inputs["prompt"] for inputs in inputs_of(graph, "ZMagicText"))]


def variants(
    graph: dict, seeds: int | None, strengths: list[float] | None
) -> Iterator[tuple[str, dict]]:
    """The graph with other seeds and strengths; as it is where none are given."""
    for seed in range(1, seeds + 1) if seeds else [None]:
        for strength in strengths or [None]:
            changed = copy.deepcopy(graph)
            if seed is not None:
                _sow(changed, seed)
            if strength is not None:
                inputs_of(changed, "ZMagicSettings")[-1]["strength"] = strength
            yield f"seed {seed or 'as shipped'}, strength {strength or 'as shipped'}", changed


def _sow(graph: dict, seed: int) -> None:
    """Set the seed, at the node that it comes from."""
    for node in graph.values():
        name = SEEDS.get(node["class_type"])
        if name is None:
            continue
        inputs = node["inputs"]
        if isinstance(inputs[name], list):
            inputs, name = graph[inputs[name][0]]["inputs"], "value"
        inputs[name] = seed


class Evaluator:
    """The CLIP that never guides."""

    def __init__(self):
        self.clip = Networks(evaluating=True).clip

    @torch.inference_mode()
    def margins(self, picture: torch.Tensor, prompts: Sequence[str]) -> dict[str, float]:
        """Return by how much ``picture [1, 3, H, W]`` fits each saying of the prompts.

        Each number is the cosine to the right prompt minus the largest one to a contrary; it is
        positive where the picture obeys.
        """
        seen = self.clip.image(self.clip.preprocessing(picture))
        return {
            question: self._margin(seen, QUESTIONS[question].prompts, value)
            for question, value in sayings(prompts).items()
        }

    def _margin(self, seen: torch.Tensor, prompts: dict, value: object) -> float:
        texts = self.clip.texts(list(prompts.values())).to(seen)
        cosines = torch.nn.functional.cosine_similarity(seen, texts).tolist()
        by_value = dict(zip(prompts, cosines, strict=True))
        return by_value.pop(value) - max(by_value.values())


def sayings(prompts: Sequence[str]) -> dict[str, object]:
    """Questions that prompts answer, and their answers."""
    said = ", ".join(prompts)
    found = {question: re.search(pattern, said) for question, pattern in SAYINGS.items()}
    answers = {question: match[1] for question, match in found.items() if match}
    answers = {question: WITHOUT_CONTRARY.get(word, word) for question, word in answers.items()}
    return {q: value for q, value in answers.items() if value in QUESTIONS[q].prompts}


def _report(
    name: str, tried: Iterator[tuple[str, dict]], evaluator: Evaluator, folder: Path, server
) -> bool:
    """Print a line for each variant; return whether any obeys."""
    obeyed = False
    for settings, graph in tried:
        prompts = prompts_of(graph)
        picture = load_photograph(_saved(_only_guided(graph), folder, server))
        margins = evaluator.margins(picture.movedim(-1, 1), prompts)
        obeyed = obeyed or min(margins.values()) > 0.0
        answers = ", ".join(f"{q} {margin:+.3f}" for q, margin in margins.items())
        print(f"{name}, {settings}: {answers} {prompts}", flush=True)
    return obeyed


def _saved(graph: dict, folder: Path, server) -> Path:
    """Run the graph; the picture that it saves."""
    outputs = server.run(graph)
    (saving,) = [i for i, node in graph.items() if node["class_type"] == "SaveImage"]
    (image,) = outputs[saving]["images"]
    return folder / image["subfolder"] / image["filename"]


def _only_guided(graph: dict) -> dict:
    """The graph with nothing saved but its last picture: that of Z-Magic, where it compares."""
    *_, last = [i for i, node in graph.items() if node["class_type"] == "SaveImage"]
    saving = {i for i, node in graph.items() if node["class_type"] in SAVING}
    return {i: node for i, node in graph.items() if i == last or i not in saving}


def inputs_of(graph: dict, kind: str) -> list[dict]:
    """The inputs of the nodes of a class."""
    return [node["inputs"] for node in graph.values() if node["class_type"] == kind]


def _server(folder: Path):
    sys.path.append(str(PACK / "scripts"))
    from api_client import running_server

    return running_server(folder, folder / "server.log", cpu=available_device() == "cpu")


if __name__ == "__main__":
    raise SystemExit(main())
