"""The inputs that all energy nodes share: weight, window, region, and the chain they append to."""

from comfy_api.latest import io

from .sockets import Conditions, Region

__all__ = [
    "CATEGORY",
    "NEVER",
    "REFERENCE_BATCH",
    "SEARCH_ALIASES",
    "condition_inputs",
    "conditions_output",
]

CATEGORY = "Z-Magic/energies"

# What users of other tools call guidance by an energy.
SEARCH_ALIASES = [
    "energy guidance",
    "loss guidance",
    "universal guidance",
    "training-free guidance",
    "FreeDoM",
    "Z-Magic",
]

# Batches of references are common to all energies that have one.
REFERENCE_BATCH = "One picture for all images, or one for each image of the batch."


# Numbers have no word for it: a value below the range of energies.
NEVER = -1.0


def condition_inputs(satisfied_at: float | None = None) -> list[io.Input]:
    """Make the inputs that every condition has beside its energy.

    Args:
        satisfied_at: the energy below which the condition does not pull, unless the user says
            otherwise; None: it always does.
    """
    return [
        io.Float.Input(
            "weight",
            default=1.0,
            min=0.0,
            max=10.0,
            step=0.05,
            round=False,
            tooltip=(
                "How strongly this condition pulls compared with the others: 1 is "
                "neutral, whatever the energies' sizes; 0 switches it off. 0.3 to 3 is "
                "a useful range. How far all of them go together is 'strength' of "
                "Z-Magic Settings."
            ),
        ),
        io.Float.Input(
            "start",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.01,
            round=False,
            tooltip=(
                "When guidance by this condition begins, as a fraction of the sampling; 0 is its "
                "first step. Large shapes and colors are decided early."
            ),
        ),
        io.Float.Input(
            "end",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.01,
            round=False,
            tooltip=(
                "When guidance by this condition ends, as a fraction of the sampling; 1 is its "
                "last step. 0.8 leaves the last details to the model."
            ),
        ),
        io.MultiType.Input(
            "region",
            [io.Mask, Region],
            optional=True,
            tooltip=(
                "Where in the picture that is being made, not in a reference, the "
                "condition applies: white counts, black does not, gray in between. A mask of "
                "any size, or what Region by Prompt finds. Not connected: the whole picture."
            ),
        ),
        Conditions.Input(
            "conditions",
            optional=True,
            tooltip="Conditions to which this one is appended. Not connected: it is the first.",
        ),
        io.Float.Input(
            "satisfied_at",
            default=NEVER if satisfied_at is None else satisfied_at,
            min=NEVER,
            max=100.0,
            step=0.0001,
            round=False,
            optional=True,  # for workflows from before it was there
            advanced=True,
            tooltip=(
                "The energy that is good enough: a picture below it is not pulled any "
                "further by this condition, and the others go on alone. The report "
                "tells the energies of finished pictures ('end' in report_json). -1 is "
                "never."
            ),
        ),
    ]


def conditions_output() -> io.Output:
    return Conditions.Output(
        display_name="conditions",
        tooltip="The incoming conditions and this node's, for the next energy or the sampler.",
    )
