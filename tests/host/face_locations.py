"""What Locate Face puts out, for the tests of whatever takes it."""

import torch
from comfy_api.latest import io

from zmagic.guidance.faces.location import FaceLocator
from zmagic.nodes.locate_face_node import ZMagicLocateFace

__all__ = ["face_location", "method_inputs"]


def method_inputs(method: str) -> dict[str, io.Input]:
    """The inputs that the node shows for a method, by name."""
    (entry,) = [each for each in ZMagicLocateFace.define_schema().inputs if each.id == "method"]
    (option,) = [each for each in entry.options if each.key == method]
    return {each.id: each for each in option.inputs}


def face_location(method: str = "detector", detector: str = "buffalo_l", **inputs) -> FaceLocator:
    """Return what the node puts out in a prompt, which ComfyUI runs in inference mode.

    Widgets that are not among ``inputs`` have the values that the node begins with.
    """
    entries = method_inputs(method)
    assert set(inputs) <= set(entries), f"method {method} has no {set(inputs) - set(entries)}"
    values = {
        name: None if getattr(entry, "force_input", False) else getattr(entry, "default", None)
        for name, entry in entries.items()
    }
    with torch.inference_mode():
        chosen = {"method": method, **values, **inputs}
        return ZMagicLocateFace.execute(method=chosen, detector=detector).args[0]
