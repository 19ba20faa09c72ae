"""What graphs, saved or posted, depend on: ``python scripts/node_schemas.py`` writes it anew.

Every node's id, title, inputs and outputs go into ``tests/host/node_schemas.json``. A test compares
them with the nodes as they are, and the file's digest with the one that CHANGELOG.md names: a
change of the nodes is one that somebody decided and told.
"""

import asyncio
import hashlib
import json
import sys

import headless

FILE = headless.PACK / "tests" / "host" / "node_schemas.json"

# Lists that hold what is installed: files, and what ComfyUI and open_clip know.
INSTALLED = {
    "architecture",
    "detector",
    "head",
    "model_name",
    "sampler_name",
    "scheduler",
    "weights",
}

# The facts of an input that its schema may give.
FACTS = ("default", "min", "max", "step", "multiline", "advanced")


def schemas() -> dict:
    """Nodes by id, as JSON holds them; needs ComfyUI and the pack loaded."""
    import zmagic

    nodes = asyncio.run(asyncio.run(zmagic.comfy_entrypoint()).get_node_list())
    found = {node.__name__: _described(node.GET_SCHEMA()) for node in nodes}
    return json.loads(json.dumps(dict(sorted(found.items()))))


def digest(text: str) -> str:
    """The short name of a file's content, the same under every convention of line ends."""
    return hashlib.sha256(text.replace("\r\n", "\n").encode()).hexdigest()[:12]


def _described(schema) -> dict:
    return {
        "id": schema.node_id,
        "title": schema.display_name,
        "category": schema.category,
        "inputs": [_input(each) for each in schema.inputs],
        "outputs": [[each.display_name or each.id, each.io_type] for each in schema.outputs],
    }


def _input(each) -> dict:
    """An input by its name, kind and facts; the inputs of each choice of a dynamic one."""
    found = {"name": each.id, "type": each.io_type, "optional": bool(each.optional)}
    if each.id not in INSTALLED:
        found |= {fact: getattr(each, fact) for fact in FACTS if _tells(each, fact)}
        template = getattr(each, "template", None)
        if hasattr(template, "names"):  # of slots that grow
            kept = {fact: getattr(template, fact) for fact in ("min", "max")}
            found |= kept | {"slots": template.names[:2], "of": _input(template.input)}
        options = getattr(each, "options", None) or []
        if options:
            found["options"] = [_option(option) for option in options]
    return found


def _option(option) -> object:
    if hasattr(option, "inputs"):  # of a DynamicCombo
        return {"key": option.key, "inputs": [_input(each) for each in option.inputs]}
    return getattr(option, "value", option)


def _tells(each, fact: str) -> bool:
    return isinstance(getattr(each, fact, None), bool | int | float | str)


def main() -> int:
    """Write the file; say what CHANGELOG.md has to name."""
    headless.load_host_on("cpu")
    headless.load_pack()
    text = json.dumps(schemas(), indent=1) + "\n"
    FILE.write_text(text, encoding="utf-8", newline="\n")
    print(f"{FILE}: tell what changed in CHANGELOG.md, beside 'nodes {digest(text)}'")
    return 0


if __name__ == "__main__":
    sys.exit(main())
