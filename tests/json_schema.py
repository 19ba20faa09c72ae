"""Checks JSON against a schema, as far as the schema of reports goes: what it does not know fails.

The keywords of draft 2020-12 in ``KNOWN``.
"""

from typing import Any

__all__ = ["faults"]

TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}
SILENT = {"$schema", "$defs", "title", "description"}
KNOWN = SILENT | {
    *("type", "const", "minimum", "maximum", "items", "minItems", "maxItems"),
    *("properties", "required", "additionalProperties", "$ref"),
}


def faults(value: Any, schema: Any, root: dict | None = None, at: str = "$") -> list[str]:
    """What is wrong with a parsed JSON value, each with its place; empty if nothing is."""
    root = schema if root is None else root
    if isinstance(schema, bool):
        return [] if schema else [f"{at}: not allowed"]
    unknown = schema.keys() - KNOWN
    assert not unknown, f"{at}: this check does not know {unknown}"
    found = []
    if "$ref" in schema:
        target = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        found += faults(value, target, root, at)
    found += _of_value(value, schema, at)
    if isinstance(value, list):
        low, high = schema.get("minItems", 0), schema.get("maxItems", len(value))
        if not low <= len(value) <= high:
            found.append(f"{at}: {len(value)} items")
        for k, item in enumerate(value):
            found += faults(item, schema.get("items", True), root, f"{at}[{k}]")
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        found += [f"{at}: no {key}" for key in schema.get("required", []) if key not in value]
        for key, part in value.items():
            rule = properties.get(key, schema.get("additionalProperties", True))
            found += faults(part, rule, root, f"{at}.{key}")
    return found


def _of_value(value: Any, schema: dict, at: str) -> list[str]:
    found = []
    kinds = schema.get("type", list(TYPES))
    kinds = [kinds] if isinstance(kinds, str) else kinds
    # A truth value is a number to Python alone.
    fitting = [kind for kind in kinds if (kind == "boolean") == isinstance(value, bool)]
    if not any(isinstance(value, TYPES[kind]) for kind in fitting):
        found.append(f"{at}: {type(value).__name__} in place of {kinds}")
    if "const" in schema and value != schema["const"]:
        found.append(f"{at}: {value!r} in place of {schema['const']!r}")
    if isinstance(value, int | float):
        low, high = schema.get("minimum", value), schema.get("maximum", value)
        if not low <= value <= high:
            found.append(f"{at}: {value} is not within {low} and {high}")
    return found
