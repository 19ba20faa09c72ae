"""What every node of the pack promises: ids, tooltips, aliases, ranges, help pages, examples."""

import asyncio
import json
import re
import tomllib
from pathlib import Path

import folder_paths
import nodes as host_nodes
import pytest

import zmagic
from zmagic.nodes.bases import EnergyNode

PACK = Path(__file__).resolve().parents[2]
NODES = asyncio.run(asyncio.run(zmagic.comfy_entrypoint()).get_node_list())
WORKFLOWS = sorted((PACK / "workflows" / "api").glob("*.json"))
LONGEST = 310  # characters of a tooltip: eight lines at 300 pixels
PAGES_HOW = "run 'python scripts/help_pages.py'"
TEXTS = tomllib.loads((PACK / "workflows" / "graphs.toml").read_text(encoding="utf-8"))


def inputs(node) -> dict:
    """Name to (type, options) of every input that is not a growing one's slot."""
    types = node.INPUT_TYPES()
    return {**types.get("required", {}), **types.get("optional", {})}


@pytest.fixture(scope="module")
def texts(pytestconfig):
    """The module ``scripts/node_texts.py``."""
    return pytestconfig.zmagic_script("node_texts")


@pytest.fixture(scope="module")
def pages(pytestconfig):
    """The module ``scripts/help_pages.py``."""
    return pytestconfig.zmagic_script("help_pages")


@pytest.mark.parametrize("node", NODES)
def test_schema(node):
    schema = node.GET_SCHEMA()
    assert schema.node_id == node.__name__ and schema.node_id.startswith("ZMagic")
    assert schema.category.startswith("Z-Magic/")
    assert schema.description and schema.search_aliases
    for socket in [*schema.inputs, *schema.outputs]:
        assert socket.tooltip, f"{schema.node_id}: a socket without a tooltip"
    for name, (kind, options, *_) in inputs(node).items():
        if kind == "FLOAT":
            assert options["round"] is False and options["step"] > 0, name
            assert options["min"] <= options["default"] <= options["max"], name
        if kind == "COMBO":  # with or without any model of the user
            assert options.get("default", options["options"][0]) in options["options"], name


@pytest.mark.parametrize("node", NODES)
def test_tooltips_can_be_read_in_a_narrow_column(texts, node):
    """Three short sentences at most, wherever they are shown: beside a node or in a table."""
    schema = node.GET_SCHEMA()
    for text in (*texts.inputs(schema), *texts.outputs(schema)):
        for tooltip in text.sentences:
            sentences = re.findall(r"[.!?](?= |$)", tooltip)
            assert 1 <= len(sentences) <= 3 and len(tooltip) <= LONGEST, (text.key, tooltip)
    assert len(schema.description) <= LONGEST


@pytest.mark.parametrize("node", NODES)
def test_a_region_is_said_to_be_one_of_the_picture_that_is_made(node):
    regions = [each for each in node.GET_SCHEMA().inputs if each.id == "region"]
    for region in regions:
        assert "picture that is being made, not in a reference" in region.tooltip


@pytest.mark.parametrize("node", NODES)
def test_the_table_of_a_help_page_is_what_the_node_says(pages, node):
    page = (pages.FOLDER / f"{node.__name__}.md").read_text(encoding="ascii")
    assert page.startswith(f"# {node.GET_SCHEMA().display_name}\n")
    assert page == pages.with_table(page, pages.table(node.GET_SCHEMA())), PAGES_HOW


# Energies whose networks do not come with the pack.
NEED_A_FILE = {"ZMagicDepth", "ZMagicNormals", "ZMagicOnnxEnergy", "ZMagicPerceptual", "ZMagicPose"}


def test_each_energy_that_runs_without_a_file_can_have_a_picture(pytestconfig):
    """The graph that makes it knows the node's inputs, and gives all that have no default."""
    made_for = pytestconfig.zmagic_script("page_pictures")
    energies = {node.__name__ for node in NODES if issubclass(node, EnergyNode)}
    assert made_for.PAGES.keys() == energies - NEED_A_FILE
    for node in (node for node in NODES if node.__name__ in made_for.PAGES):
        required = node.INPUT_TYPES()["required"]
        known = inputs(node)
        defaults = {name for name, (_, options, *_) in known.items() if "default" in options}
        given = made_for.graph_of(node.__name__, {})["energy"]["inputs"]
        choices = {name for name in given if "." in name}  # of one of a node's inputs
        assert {name.split(".")[0] for name in given} <= known.keys()
        assert {name for name, (kind, *_) in required.items() if kind != "COMBO"} <= (
            given.keys() - choices | defaults
        )


def test_pictures_of_help_pages_are_small_and_of_nodes():
    pictures = {file.stem: file for file in (PACK / "web" / "docs" / "pictures").glob("*")}
    assert pictures.keys() <= {node.__name__ for node in NODES}
    assert {name for name, file in pictures.items() if file.stat().st_size > 25_000} == set()


def test_there_is_no_help_page_without_a_node():
    pages = {page.stem for page in (PACK / "web" / "docs").glob("*.md")}
    assert pages == {node.__name__ for node in NODES}


def graph_of(api: Path) -> dict:
    """The graph file's content that belongs to a prompt."""
    name = TEXTS[api.stem]["name"]
    return json.loads((PACK / "workflows" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_example_workflows_use_known_nodes_and_inputs_and_have_a_graph_twin(file):
    ours = {node.__name__: node for node in NODES}
    api = json.loads(file.read_text(encoding="utf-8"))
    for node in api.values():
        kind = node["class_type"]
        assert kind in ours or kind in host_nodes.NODE_CLASS_MAPPINGS or f'"{kind}"' in CORE_EXTRAS
        if kind in ours:
            known = set(inputs(ours[kind]))
            assert {name.split(".")[0] for name in node["inputs"]} <= known, kind
    kinds = [node["type"] for node in graph_of(file)["nodes"]]
    assert sorted(kinds) == sorted(["MarkdownNote", *(node["class_type"] for node in api.values())])


def test_the_lists_of_graphs_are_those_of_the_graphs(pytestconfig):
    """The README's table, and the graphs for comfy-test, which has no checkpoint."""
    for file, text in pytestconfig.zmagic_script("graph_lists").listed().items():
        assert file.read_text(encoding="utf-8") == text, "run scripts/make_workflows.py"
    settings = tomllib.loads((PACK / "comfy-test.toml").read_text(encoding="utf-8"))
    free = settings["test"]["workflows"]["cpu"]
    assert free and all("runs at once" in name for name in free)


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_graphs_say_where_their_models_are(file):
    """The frontend offers to download what is missing, from links of these hosts alone."""
    for node in graph_of(file)["nodes"]:
        named = [v for v in node.get("widgets_values") or () if str(v).endswith(FILES)]
        linked = node["properties"].get("models", [])
        if node["type"] != "ZMagicLoadSegmenter":  # its network is on no hub under that name
            assert [model["name"] for model in linked] == named, node["type"]
        for model in linked:
            assert model["url"].startswith("https://huggingface.co/")
            assert model["url"].endswith(FILES)
            # Folders of the face networks are known once one of their loaders has been asked.
            known = {*folder_paths.folder_names_and_paths, "insightface"}
            assert model["directory"] in known


# What the frontend takes for the name of a model file, and lists where it is missing.
FILES = (".safetensors", ".onnx")

# Where the host's own nodes are that it registers when its server starts.
CORE_EXTRAS = "".join(
    file.read_text(encoding="utf-8")
    for file in Path(host_nodes.__file__).parent.glob("comfy_extras/nodes_*.py")
)


def test_source_is_ascii():
    for file in PACK.glob("*/**/*.py"):
        if not {".venv", ".host"} & set(file.parts):
            file.read_text(encoding="ascii")
