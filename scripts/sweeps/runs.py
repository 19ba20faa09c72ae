"""One variant on one host: posted, waited for, its pictures and its report fetched."""

import json
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from api_client import Server, WorkflowError

from .variations import Variant

__all__ = ["TROUBLES", "Failed", "Made", "answers", "cancel", "made_by", "with_report"]

# Everything that keeps a host from making a variant; OSError has the timeouts in it.
TROUBLES = (WorkflowError, OSError)

# The output of JSON of those nodes that tell how guidance went.
REPORTS = {"ZMagicSampler": 2, "ZMagicReport": 1}
REPORT_NODE = "sweep-report"


@dataclass(frozen=True)
class Made:
    """What a host made of a variant.

    Args:
        pictures: contents of the files that the graph saves, in the order of its nodes.
        seconds: from the start of the graph to its end, by the host's clock.
        energies: condition to the energies of the finished pictures; empty without a report.
        warnings: of the report.
    """

    variant: Variant
    host: str
    pictures: Sequence[bytes]
    seconds: float
    energies: Mapping[str, Sequence[float]] = field(default_factory=dict)
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Failed:
    """A variant that no host could make, and the last one's reason."""

    variant: Variant
    host: str
    reason: str


def with_report(graph: dict) -> dict:
    """The graph, with its report brought into the history, where one of its nodes makes one."""
    for node_id, node in graph.items():
        if output := REPORTS.get(node["class_type"]):
            shown = {"class_type": "PreviewAny", "inputs": {"source": [node_id, output]}}
            return {**graph, REPORT_NODE: shown}
    return graph


def made_by(
    server: Server, variant: Variant, patience: float, stopped: threading.Event | None = None
) -> Made:
    """Have the host make the variant; one that it has made or is making is not posted again.

    Args:
        patience: seconds without any progress after which the host is given up.
        stopped: once it is set, nothing is posted any more.

    Raises:
        WorkflowError: the host refused the graph or failed in it.
        OSError: the host is gone, frozen or stuck.
    """
    prompt_id = variant.prompt_id
    state = _state(server, prompt_id)
    if stopped is not None and stopped.is_set():
        raise InterruptedError("the sweep was stopped")
    if state == "failed":
        server.post("/history", {"delete": [prompt_id]})
    if state in ("failed", "unknown"):
        # Another id if the host is of a version that chooses its own.
        prompt_id = server.submit(with_report(variant.graph), prompt_id)
    outputs = server.wait(prompt_id, patience)
    entry = server.get(f"/history/{prompt_id}")[prompt_id]
    pictures = [
        server.picture(image)
        for node_id in variant.graph
        for image in outputs.get(node_id, {}).get("images", ())
        if image["type"] == "output"
    ]
    if not pictures:
        raise WorkflowError("the graph saved no picture: it needs a node such as Save Image")
    report = _report(outputs)
    return Made(
        variant=variant,
        host=server.address,
        pictures=pictures,
        seconds=_seconds(entry["status"]["messages"]),
        energies=report.get("final", {}),
        warnings=report.get("warnings", ()),
    )


def cancel(server: Server, variant: Variant) -> None:
    """Take the variant from the host, as far as the host answers."""
    with suppress(*TROUBLES):
        server.post("/queue", {"delete": [variant.prompt_id]})
        server.post("/interrupt", {"prompt_id": variant.prompt_id})


def _state(server: Server, prompt_id: str) -> str:
    """``waiting``, ``done``, ``failed`` or ``unknown``."""
    # The queue first: what leaves it between the two questions is in the history.
    queue = server.get("/queue")
    if any(entry[1] == prompt_id for entries in queue.values() for entry in entries):
        return "waiting"
    entry = server.get(f"/history/{prompt_id}").get(prompt_id)
    if entry is None:
        return "unknown"
    return "done" if entry["status"]["status_str"] == "success" else "failed"


def _report(outputs: Mapping[str, Mapping]) -> dict:
    text = outputs.get(REPORT_NODE, {}).get("text", ["{}"])[0]
    try:
        report = json.loads(text)
    except ValueError:  # the warning that stands in place of a report that could not be written
        return {"warnings": [text]}
    return report if isinstance(report, dict) else {}


def _seconds(messages: Sequence) -> float:
    times = [details["timestamp"] for _, details in messages if "timestamp" in details]
    return (max(times) - min(times)) / 1000.0 if times else float("nan")


def answers(server: Server) -> bool:
    """Whether the host is there."""
    with suppress(*TROUBLES):
        return bool(server.get("/system_stats"))
    return False
