"""Compare runs: a labelled sheet of their images, their energy curves, their figures."""

import json

from comfy_api.latest import io

from ..guidance.plots import contact_sheet, run_curves

__all__ = ["NODES"]

MOST_RUNS = 12


class ZMagicCompareRuns(io.ComfyNode):
    """Images and reports of several runs side by side."""

    @classmethod
    def define_schema(cls):
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
                        io.Image.Input("image", tooltip="Images of one run, one row per image."),
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
                            "report", force_input=True, tooltip="report_json of one run."
                        ),
                        prefix="report",
                        min=1,
                        max=MOST_RUNS,
                    ),
                    tooltip="report_json of each Z-Magic Sampler, in the order of the labels.",
                ),
                io.String.Input(
                    "labels",
                    default="unguided, FreeDoM, Z-Magic",
                    tooltip="One label per run, separated by commas.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="sheet", tooltip="The images under their labels."),
                io.Image.Output(display_name="curves", tooltip="One plot per condition."),
                io.String.Output(
                    display_name="summary",
                    tooltip="JSON: for each label the energies of the finished images and the "
                    "evaluations they cost.",
                ),
            ],
        )

    @classmethod
    def execute(cls, images, reports, labels) -> io.NodeOutput:
        names = [name.strip() for name in labels.split(",") if name.strip()]
        for what, given in (("images", images), ("reports", reports)):
            if len(given) != len(names):
                raise ValueError(
                    f"Compare Z-Magic Runs: labels names {len(names)} runs ({', '.join(names)}), "
                    f"but {len(given)} {what} are connected"
                )
        runs = dict(zip(names, map(_parsed, reports.values()), strict=True))
        summary = {
            name: {"final": run["final"], "totals": run["totals"]} for name, run in runs.items()
        }
        return io.NodeOutput(
            contact_sheet(list(zip(names, images.values(), strict=True))),
            run_curves(runs),
            json.dumps(summary),
        )


def _parsed(report: str) -> dict:
    try:
        run = json.loads(report)
        return {key: run[key] for key in ("steps", "final", "totals")}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            "Compare Z-Magic Runs: reports expects the report_json of a Z-Magic Sampler, "
            f"got {report[:60]!r}"
        ) from error


NODES = [ZMagicCompareRuns]
