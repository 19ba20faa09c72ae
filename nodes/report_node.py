"""The node that reads the last run of a guided model, for samplers that know nothing of reports."""

from dataclasses import replace
from typing import Any

from comfy_api.latest import io

from ..guidance.trace import Trace
from ..host.hooks import last_runs
from ..host.last_runs import LastRuns
from .bases import Node
from .run_reports import figure_of, json_of, report_outputs, shown, tell
from .settings_node import ALIASES

__all__ = ["NODES"]


class ZMagicReport(Node):
    """Report what the guidance did in a run of the stock KSampler or any other sampler."""

    @classmethod
    def schema(cls) -> io.Schema:
        passed = io.MatchType.Template("passed")
        return io.Schema(
            node_id="ZMagicReport",
            display_name="Z-Magic Report",
            category="Z-Magic/tools",
            description="Shows what the guidance of Apply Z-Magic or Z-Magic Guider did: how far "
            "each condition came, conflicts, warnings.",
            search_aliases=[*ALIASES, "energy curves", "plot"],
            is_output_node=True,
            inputs=[
                io.MultiType.Input(
                    "guided",
                    [io.Model, io.Guider],
                    tooltip="The guided model or guider that goes into the sampler: of Apply "
                    "Z-Magic or Z-Magic Guider, or of a node behind it.",
                ),
                io.MatchType.Input(
                    "latent",
                    passed,
                    tooltip="What the sampler put out, so that the report is read after the run. "
                    "A latent also tells which run it is of, if the model had several.",
                ),
            ],
            outputs=[
                *report_outputs(),
                io.MatchType.Output(
                    passed, display_name="latent", tooltip="The latent as it came in."
                ),
            ],
        )

    @classmethod
    def run(cls, guided, latent) -> io.NodeOutput:
        runs = last_runs(guided)
        if runs is None:
            raise ValueError(
                "connect the model of Apply Z-Magic, or the guider of Z-Magic Guider, to 'guided': "
                "expected a guided one, got one without guidance"
            )
        trace, doubt = _found(runs, latent)
        if trace is None:
            raise ValueError(
                "sample once more, with another seed: the guided model that is connected to "
                "'guided' has no run yet.\nIt must be the one that goes into the sampler, and "
                "'latent' what the sampler puts out"
            )
        figure = figure_of(trace)
        tell(cls, trace, doubt)
        report = json_of(trace)
        return io.NodeOutput(figure, report, latent, ui=shown(trace, figure, doubt))


def _found(runs: LastRuns, latent: Any) -> tuple[Trace | None, str]:
    """The run that made the latent; else the last one, and a sentence that says so."""
    if not isinstance(latent, dict):
        return runs.last(), ""
    found, last = runs.of(latent.get("samples")), runs.last()
    if found is not None or last is None:
        return found, ""
    doubt = "No run of this model made this latent: the report is of the model's last run."
    return replace(last, notes=[*last.notes, doubt]), doubt


NODES = [ZMagicReport]
