"""The paper's three tasks, and the one with a growing number of conditions."""

from .methods import MOST_CONDITIONS

__all__ = ["ABLATION_TASK", "MANY", "OF_THE_FACE", "TASKS", "attributes_of"]

# Names of attributes in the order in which they are connected.
TASKS = {
    "text + segmentation + identity": ("text", "segmentation", "identity"),
    "identity + landmarks": ("identity", "landmarks"),
    "text + style": ("text", "style"),
}
# Attributes that a picture without a face does not have.
OF_THE_FACE = ("identity", "landmarks")
# The ablations are made on the task whose conditions are both of the face.
ABLATION_TASK = "identity + landmarks"

MANY = "many conditions"
MANY_ATTRIBUTES = ("identity", "landmarks", "text", "segmentation", "palette", "style")
assert len(MANY_ATTRIBUTES) == MOST_CONDITIONS


def attributes_of(task: str) -> tuple[str, ...]:
    """The attributes of a task: one of TASKS, MANY, or names joined by plus signs."""
    if task == MANY:
        return MANY_ATTRIBUTES
    return TASKS.get(task) or tuple(name.strip() for name in task.split("+"))
