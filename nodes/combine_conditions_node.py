"""The node that joins chains of conditions."""

from comfy_api.latest import io

from .bases import Node
from .condition_inputs import CATEGORY, SEARCH_ALIASES, conditions_output
from .sockets import Conditions

__all__ = ["NODES"]

# Slots: the chains themselves may be of any length.
MOST_CHAINS = 32


class ZMagicCombineConditions(Node):
    """Join several chains of conditions into one."""

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicCombineConditions",
            display_name="Combine Conditions",
            category=CATEGORY,
            description=(
                "Joins several chains of conditions into one, in the order of the slots. A "
                "condition that arrives twice counts once."
            ),
            search_aliases=[*SEARCH_ALIASES, "merge conditions", "join conditions"],
            inputs=[
                io.Autogrow.Input(
                    "chains",
                    template=io.Autogrow.TemplatePrefix(
                        Conditions.Input(
                            "conditions",
                            tooltip="A chain of conditions. A new slot appears when one is used.",
                        ),
                        prefix="conditions",
                        min=1,
                        max=MOST_CHAINS,
                    ),
                    tooltip="The chains to join; conditions of the first slot come first.",
                ),
            ],
            outputs=[conditions_output()],
        )

    @classmethod
    def run(cls, chains: io.Autogrow.Type) -> io.NodeOutput:
        joined = [condition for chain in chains.values() for condition in chain or ()]
        # Chains may share their beginning; a dict keeps the first place of each condition.
        return io.NodeOutput(tuple(dict.fromkeys(joined)))


NODES = [ZMagicCombineConditions]
