"""What all nodes share: the title and number in front of what a user can mend, and nothing else."""

import ast
import asyncio
import inspect
from pathlib import Path

import comfy.model_management
import pytest
import torch
from comfy_api.internal import make_locked_method_func
from comfy_api.latest import io

import zmagic
from zmagic.nodes.bases import EnergyNode, LoaderNode, Node

PACK = Path(__file__).resolve().parents[2]
NODES = asyncio.run(asyncio.run(zmagic.comfy_entrypoint()).get_node_list())


class Failing(Node):
    """A node that raises what it is given."""

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(node_id="Failing", display_name="Fail", category="Z-Magic/tests")

    @classmethod
    def run(cls, error: Exception) -> io.NodeOutput:
        raise error


class Bright(EnergyNode):
    """An energy node without inputs of its own."""

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(node_id="Bright", display_name="Bright Energy")

    @classmethod
    def energy(cls):
        return lambda image, region=None: image.flatten(1).mean(1)


def run_as_comfyui(node: type[io.ComfyNode], number: str, **inputs) -> tuple:
    """Execute a node as in a graph: the method of the class on a locked clone of it."""
    node.VALIDATE_CLASS()
    clone = node.PREPARE_CLASS_CLONE({"hidden_inputs": {io.Hidden.unique_id: number}})
    return make_locked_method_func(node, node.FUNCTION, clone)(**inputs).args


@pytest.mark.parametrize("node", NODES)
def test_every_node_knows_its_number(node):
    assert issubclass(node, Node)
    assert io.Hidden.unique_id in node.GET_SCHEMA().hidden
    assert issubclass(node, EnergyNode) == node.GET_SCHEMA().display_name.endswith(" Energy")


@pytest.mark.parametrize("node", [node for node in NODES if issubclass(node, EnergyNode)])
def test_energies_return_their_warnings(node):
    """One that showed them itself would see them replaced by those of the shared inputs."""
    assert "notify(" not in inspect.getsource(node.energy)


@pytest.mark.parametrize("kind", [ValueError, FileNotFoundError])
@pytest.mark.parametrize("described", [True, False])
def test_what_a_user_can_mend_starts_with_title_and_number(kind, described):
    if described:
        Failing.GET_SCHEMA()  # as the server does before a graph
    error = kind("expected a cat, got 'dog'")
    with pytest.raises(kind, match=r"^Fail \(node 12\): expected a cat, got 'dog'$") as caught:
        run_as_comfyui(Failing, "12", error=error)
    assert caught.value.__cause__ is error
    with pytest.raises(kind, match="^Fail: expected a cat"):
        Failing.execute(error=error)


@pytest.mark.parametrize(
    "error",
    [
        comfy.model_management.InterruptProcessingException(),
        comfy.model_management.OOM_EXCEPTION("out of memory"),
        torch.OutOfMemoryError("out of memory"),
        RuntimeError("a bug"),
        KeyError("a bug"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_interruptions_and_bugs_pass_as_they_are(error):
    with pytest.raises(type(error)) as caught:
        run_as_comfyui(Failing, "12", error=error)
    assert caught.value is error


def test_an_energy_node_appends_its_condition():
    common = {"weight": 2.0, "start": 0.25, "end": 0.5}
    (first,) = run_as_comfyui(Bright, "3", **common)
    (both,) = run_as_comfyui(Bright, "4", **common, conditions=first, region=torch.ones(4, 4))
    assert both[0] is first[0] and len(both) == 2
    assert (both[1].name, both[1].weight, both[1].start, both[1].end) == ("Bright", 2.0, 0.25, 0.5)
    assert both[1].region.shape == (1, 4, 4)
    with pytest.raises(ValueError, match=r"^Bright Energy \(node 5\): expected 'start' not after"):
        run_as_comfyui(Bright, "5", weight=1.0, start=0.6, end=0.5)


@pytest.mark.parametrize("node", [node for node in NODES if issubclass(node, LoaderNode)])
def test_loaders_look_for_files_and_say_what_is_missing(node):
    inputs = node.INPUT_TYPES()["required"]
    options = {name: entry[1].get("default") for name, entry in inputs.items()}
    name = node.NAMES[-1]
    absent = {**options, name: "nowhere.onnx"}
    assert node.validate_inputs(**{name: "nowhere.onnx"}) is True
    assert "must be the name of a file" in node.validate_inputs(**{name: 7})
    assert node.fingerprint_inputs(**absent) == ("nowhere.onnx",)
    with pytest.raises(ValueError, match=r"\(node 12\): .*'nowhere.onnx' not found. Put it in"):
        run_as_comfyui(node, "12", **absent)


def sentences(folder: str) -> dict[str, set[str]]:
    """The texts in a package's code, without its docstrings, by file."""
    found = {}
    for file in sorted((PACK / folder).rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        documentation = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        found[str(file.relative_to(PACK))] = {
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in documentation
        }
    return found


@pytest.mark.parametrize("folder", ["guidance", "host"])
def test_what_is_below_the_nodes_does_not_speak_of_them(folder):
    titles = [node.GET_SCHEMA().display_name for node in NODES]
    spoken = {
        (file, title)
        for file, texts in sentences(folder).items()
        for title in titles
        if any(title in text for text in texts)
    }
    assert not spoken
