"""The node that keeps the best pictures of a batch, by the energies of conditions."""

import json
import math

from comfy_api.latest import io
from torch import Tensor

from ..guidance.means import mean_in_words
from ..guidance.pictures.references import ordinary
from ..guidance.ranking import best_first, scores
from ..guidance.trace import rounded
from ..guidance.wording import numbered
from ..host.measuring import Measured, energies_of
from .bases import Node
from .condition_inputs import SEARCH_ALIASES
from .notices import notify, say
from .picture_inputs import pictures
from .sockets import Conditions

__all__ = ["NODES"]

MOST = 4096  # pictures of a batch


class ZMagicKeepBest(Node):
    """Keep the pictures of a batch that satisfy conditions best."""

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicKeepBest",
            display_name="Keep Best",
            category="Z-Magic/tools",
            description=(
                "Keeps those pictures of a batch that satisfy the conditions best. It needs no "
                "guided sampling and no gradient: for models that cannot be guided, too."
            ),
            search_aliases=[*SEARCH_ALIASES, "best of N", "rank", "select image", "filter", "sort"],
            inputs=[
                io.Image.Input("images", tooltip="The pictures to choose from, as one batch."),
                Conditions.Input(
                    "conditions",
                    tooltip="What the pictures should satisfy, by weight: the end of a chain of "
                    "energy nodes, or Combine Conditions.",
                ),
                io.Int.Input(
                    "keep",
                    default=1,
                    min=1,
                    max=MOST,
                    tooltip="How many pictures are kept. All of them: they are sorted.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The best pictures, best first."),
                io.String.Output(
                    display_name="energies",
                    tooltip="Place, score and energies of every picture as JSON, best first.",
                ),
            ],
        )

    @classmethod
    def run(cls, images: Tensor, conditions, keep: int) -> io.NodeOutput:
        measured = energies_of(conditions, ordinary(pictures(images, "images")))
        if not measured.energies:
            raise ValueError(
                "raise the weight of a condition, or connect one: expected at least one condition "
                f"of a weight above 0, got {len(conditions)} of weight 0"
            )
        scored = scores(measured.energies, measured.weights)
        order = best_first(scored)
        kept, warnings = order[:keep], list(measured.warnings)
        if keep > len(order):
            warnings.append(f"'keep' is {keep}, the batch has {len(order)}: all are kept, sorted.")
        warnings += _last(measured, scored)
        notify(cls, warnings)
        lines = [_line(measured, b, place, len(order)) for place, b in enumerate(kept, start=1)]
        say(cls, "\n".join((*warnings, *lines)))
        return io.NodeOutput(images[kept], _table(measured, scored, order))


def _last(measured: Measured, scored: list[float]) -> list[str]:
    """Which pictures come last, and which conditions do not count."""
    last = [b for b, score in enumerate(scored) if not math.isfinite(score)]
    said, known = [], set()
    for name, hidden in measured.unseen.items():
        if len(hidden) == len(scored) > len(last):
            said.append(f"{name} was not seen in any picture: it does not count.")
        elif hidden:
            said.append(f"picture {numbered(hidden)} comes last: {name} was not seen in it.")
            known.update(hidden)
    others = [b for b in last if b not in known]
    if others:
        said.append(f"picture {numbered(others)} has an energy that is no number: it comes last.")
    return said


def _line(measured: Measured, picture: int, place: int, count: int) -> str:
    """One picture in words; pictures count from 1."""
    each = ", ".join(
        f"{name} {mean_in_words([values[picture]], 3)}"
        for name, values in measured.energies.items()
    )
    return f"{place}. picture {picture + 1} of {count}: {each}"


def _table(measured: Measured, scored: list[float], order: list[int]) -> str:
    def number(value: float) -> float | None:
        return rounded(value) if math.isfinite(value) else None

    rows = [
        {
            "picture": picture,
            "score": number(scored[picture]),
            "energies": {
                name: number(values[picture]) for name, values in measured.energies.items()
            },
        }
        for picture in order
    ]
    return json.dumps({"weights": measured.weights, "pictures": rows}, allow_nan=False)


NODES = [ZMagicKeepBest]
