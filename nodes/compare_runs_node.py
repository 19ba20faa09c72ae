"""The node that compares runs: a labeled sheet of images, energy curves, and a summary in JSON."""

import json
from collections import Counter

from comfy_api.latest import io
from torch import Tensor

from ..guidance.contact_sheet import contact_sheet
from ..guidance.errors import advised, named
from ..guidance.plots import run_curves
from ..guidance.reports import mean_cosines, read_report
from ..guidance.wording import printable, quoted
from .bases import Node
from .picture_inputs import pictures

__all__ = ["NODES"]

MOST_RUNS = 12
MOST_ROWS = 64  # pictures below each other
MOST_REFERENCES = 12


class ZMagicCompareRuns(Node):
    """Show images and reports of several runs side by side."""

    @classmethod
    def schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ZMagicCompareRuns",
            display_name="Compare Z-Magic Runs",
            category="Z-Magic/tools",
            description="Puts the images of several runs side by side under their labels and "
            "draws their energies into one plot per condition.",
            search_aliases=["contact sheet", "image grid", "XY plot", "energy curves"],
            inputs=[
                io.Autogrow.Input(
                    "images",
                    template=io.Autogrow.TemplatePrefix(
                        io.Image.Input(
                            "image", tooltip="The images of one run; each has a row of its own."
                        ),
                        prefix="image",
                        min=1,
                        max=MOST_RUNS,
                    ),
                    tooltip="The images of each run, in the order of the labels.",
                ),
                io.Autogrow.Input(
                    "reports",
                    template=io.Autogrow.TemplatePrefix(
                        io.String.Input(
                            "report", force_input=True, tooltip="The report_json of one run."
                        ),
                        prefix="report",
                        min=1,
                        max=MOST_RUNS,
                    ),
                    tooltip="The report_json of each Z-Magic Sampler, in the order of the labels.",
                ),
                io.String.Input(
                    "labels",
                    default="unguided, FreeDoM, Z-Magic",
                    tooltip=(
                        "One label per run, separated by commas, in the order of the slots; "
                        "they must differ. At most 12 runs and 64 rows."
                    ),
                ),
                io.Autogrow.Input(
                    "references",
                    optional=True,
                    template=io.Autogrow.TemplatePrefix(
                        io.Image.Input(
                            "reference", tooltip="A picture that a condition was taken from."
                        ),
                        prefix="reference",
                        min=0,
                        max=MOST_REFERENCES,
                    ),
                    tooltip="What the runs were conditioned on, for a first column of the sheet. A "
                    "new slot appears when one is used.",
                ),
                io.String.Input(
                    "captions",
                    default="",
                    multiline=True,
                    optional=True,
                    placeholder="identity\nlayout\na photo of a woman",
                    tooltip=(
                        "The texts of that column: one line under each reference, in their "
                        "order; further lines have a row of their own, such as a prompt."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output(display_name="sheet", tooltip="The images under their labels."),
                io.Image.Output(
                    display_name="curves",
                    tooltip=(
                        "The energies over the steps: one plot per condition, one line per run;"
                        " cosines between the gradients, one plot per pair of conditions."
                    ),
                ),
                io.String.Output(
                    display_name="summary",
                    tooltip="JSON: for each label the energies of the finished images, the mean "
                    "cosines between the conditions' gradients, and the evaluations they cost.",
                ),
            ],
        )

    @classmethod
    def run(
        cls, images, reports, labels, references: dict | None = None, captions: str = ""
    ) -> io.NodeOutput:
        names = _names(labels, images, reports)
        runs = dict(zip(names, map(_parsed, reports.values()), strict=True))
        summary = {
            name: {
                "final": run["final"],
                "cosines": mean_cosines(run),
                "totals": run["totals"],
            }
            for name, run in runs.items()
        }
        columns = list(zip(names, map(_images, images.values()), strict=True))
        return io.NodeOutput(
            contact_sheet(columns, _conditions(references, captions)),
            run_curves(runs),
            json.dumps(summary),
        )


def _names(labels: str, images: dict, reports: dict) -> list[str]:
    """The labels of the runs, one for each batch of images and each report."""
    names = [name.strip() for name in labels.split(",") if name.strip()]
    for what, given in (("images", images), ("reports", reports)):
        if len(given) != len(names):
            raise ValueError(
                f"labels names {len(names)} runs ({printable(', '.join(names))[:80]}), "
                f"but {len(given)} {what} are connected"
            )
    equal = [name for name, count in Counter(names).items() if count > 1]
    if equal:
        raise ValueError(f"labels must differ, got {quoted(equal[0])} more than once")
    return names


def _images(images: Tensor, name: str = "images") -> Tensor:
    """An IMAGE ``[B, h, w, 3]`` of no more pictures than a sheet has room for."""
    shown = pictures(images, name).movedim(1, -1)
    if len(shown) > MOST_ROWS:
        raise ValueError(
            f"'{name}' holds {len(shown):,} pictures, expected at most {MOST_ROWS}; "
            "choose some of them with 'Image From Batch'"
        )
    return shown


def _conditions(references: dict | None, captions: str) -> list[tuple[str, Tensor | None]]:
    """Lines of text, the first of them with the pictures that they belong to."""
    connected = [images for images in (references or {}).values() if images is not None]
    shown = [picture for images in connected for picture in _images(images, "references")]
    lines = [line.strip() for line in captions.strip().splitlines()]
    lines += [""] * (len(shown) - len(lines))
    if len(lines) > MOST_ROWS:
        raise ValueError(
            f"references and captions are {len(lines):,} lines, expected at most {MOST_ROWS}"
        )
    return [(line, shown[k] if k < len(shown) else None) for k, line in enumerate(lines)]


def _parsed(report: str) -> dict:
    with named("reports"), advised("Connect report_json of a Z-Magic Sampler"):
        return read_report(report)


NODES = [ZMagicCompareRuns]
