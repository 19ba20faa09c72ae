"""The base classes of the nodes: the title in front of errors, common inputs and outputs.

ComfyUI executes a locked clone of a node's class, so that nothing here keeps state.
"""

from dataclasses import dataclass
from pathlib import Path

from comfy_api.latest import io
from torch import Tensor

from ..guidance.conditions import Condition
from ..guidance.energies import Energy
from ..guidance.errors import named
from ..guidance.faces.location import FaceLocator
from ..guidance.live_regions import LiveRegion
from ..guidance.pictures.references import ordinary
from ..host.mask_origins import loaded_with
from ..host.model_files import usable_name
from ..host.networks import stamp_of
from .condition_inputs import CATEGORY, SEARCH_ALIASES, condition_inputs, conditions_output
from .notices import notify
from .picture_inputs import masks
from .titles import display_name, title

__all__ = ["LOADERS", "EnergyNode", "LoaderNode", "Made", "Node"]

# The category of attribute networks and of what they need.
LOADERS = "Z-Magic/models"


class Node(io.ComfyNode):
    """A node whose errors start with its title and number: ``Load OpenCLIP (node 12): ...``.

    Subclasses describe themselves (``schema``) and do their work (``run``).
    """

    @classmethod
    def schema(cls) -> io.Schema:
        """Describe the node: id, title, inputs and outputs; its number in the graph is added."""
        raise NotImplementedError

    @classmethod
    def run(cls, **inputs) -> io.NodeOutput:
        """Compute the node's outputs from its inputs, which come under their ids.

        Raises:
            ValueError: an input cannot be used; the sentence says what to do, without the title.
        """
        raise NotImplementedError

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = cls.schema()
        schema.hidden = [io.Hidden.unique_id]
        return schema

    @classmethod
    def execute(cls, *args, **inputs) -> io.NodeOutput:
        with named(title(cls)):
            return cls.run(*args, **inputs)


@dataclass(frozen=True)
class Made:
    """What an energy node makes of its own inputs.

    Attributes:
        energy: the energy of the condition that the node appends.
        shown: the outputs beside the conditions, such as the crop that a network sees.
        warnings: sentences that the node shows.
    """

    energy: Energy
    shown: tuple[Tensor, ...] = ()
    warnings: tuple[str, ...] = ()


class EnergyNode(Node):
    """A node that appends a condition to a chain: the inputs that all have are handled here.

    Subclasses give their own inputs and further outputs (``schema``) and make the energy
    (``energy``).

    Attributes:
        SATISFIED_AT: the energy below which the condition does not pull, unless the user says
            otherwise; None: it always does.
        OWN_LAYOUT: the input whose picture is not laid over the one that is made, so that a place
            in it says nothing of a place there; None: there is no such input.
    """

    SATISFIED_AT: float | None = None
    OWN_LAYOUT: str | None = None

    @classmethod
    def energy(cls, **inputs) -> Energy | Made:
        """Make the energy that the node's own inputs describe.

        Raises:
            ValueError: an input cannot be used.
        """
        raise NotImplementedError

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = super().define_schema()
        schema.hidden = [*schema.hidden, io.Hidden.prompt]
        schema.category = CATEGORY
        schema.search_aliases = [*SEARCH_ALIASES, *schema.search_aliases]
        schema.inputs = [*schema.inputs, *condition_inputs(cls.SATISFIED_AT)]
        schema.outputs = [conditions_output(), *schema.outputs]
        return schema

    @classmethod
    def run(
        cls,
        *args,
        weight: float,
        start: float,
        end: float,
        region: Tensor | LiveRegion | None = None,
        conditions: tuple[Condition, ...] | None = None,
        satisfied_at: float | None = None,
        **inputs,
    ) -> io.NodeOutput:
        """Append this node's condition, which has the name of its energy, to the incoming ones."""
        made = cls.energy(*args, **inputs)
        made = made if isinstance(made, Made) else Made(made)
        if start > end:
            raise ValueError(
                f"expected 'start' not after 'end', got start {start:g} and end {end:g}"
            )
        if region is not None and not isinstance(region, LiveRegion):
            region = ordinary(masks(region, "region"))
        name = display_name(cls).removesuffix(" Energy")
        enough = cls.SATISFIED_AT if satisfied_at is None else satisfied_at
        enough = enough if enough is not None and enough >= 0.0 else None
        astray = cls._region_of_reference(inputs.get("face_location"))
        notify(cls, [*made.warnings, *astray])
        condition = Condition(name, made.energy, weight, start, end, region, enough, astray)
        return io.NodeOutput((*(conditions or ()), condition), *made.shown)

    @classmethod
    def _region_of_reference(cls, face_location: FaceLocator | None) -> tuple[str, ...]:
        """A sentence if the region was painted on the reference, as users do by mistake."""
        number, graph = (getattr(cls.hidden, name, None) for name in ("unique_id", "prompt"))
        framed_alike = face_location is not None and face_location.fixed_in_reference
        if cls.OWN_LAYOUT is None or not graph or framed_alike:
            return ()
        loader = loaded_with(graph, number, "region", cls.OWN_LAYOUT)
        if loader is None:
            return ()
        return (
            "connect the mask to 'reference_mask' in place of 'region'.\nIt was made on "
            f"'{cls.OWN_LAYOUT}' itself (node {loader}), but a region is a place in the picture "
            "that is being made",
        )


class LoaderNode(Node):
    """A node that loads a file which its input ``model_name``, or those in ``NAMES``, name.

    Subclasses look for the file (``find``) and open it (``load``).
    """

    NAMES: tuple[str, ...] = ("model_name",)

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = super().define_schema()
        schema.category = LOADERS
        return schema

    @classmethod
    def find(cls, *names: str) -> Path:
        """Look for the file that the inputs in ``NAMES`` name, in ComfyUI's model folders.

        Raises:
            ValueError: it is not there; the sentence says where to get it.
        """
        raise NotImplementedError

    @classmethod
    def load(cls, path: Path, **options) -> object:
        """Open the file and return the network that the node puts out.

        Raises:
            ValueError: the file cannot be used.
        """
        raise NotImplementedError

    @classmethod
    def validate_inputs(cls, model_name: str = "") -> bool | str:
        """Refuse names that are paths; a missing file is reported when the node runs."""
        return usable_name(model_name, "model_name")

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> tuple:
        """Change with the file: another one under the same name is another network."""
        names = [inputs.get(name, "") for name in cls.NAMES]
        return stamp_of(lambda: cls.find(*names), names[-1])

    @classmethod
    def run(cls, model_name: str, **options) -> io.NodeOutput:
        return io.NodeOutput(cls.load(cls.find(model_name), **options))
