"""What a part of the check is given, and what it answers."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

__all__ = [
    "FAILED",
    "PASSED",
    "SKIPPED",
    "Finding",
    "Setup",
    "counted",
    "read",
    "verdict_of",
    "write",
]

PASSED, FAILED, SKIPPED = "passed", "failed", "not applicable"


@dataclass(frozen=True)
class Setup:
    """The device that a part of the check runs on, the size of its work, and its limits.

    Args:
        device: ``cuda``, ``mps``, ``xpu`` or ``cpu``.
        size: ``real`` or ``small``.
        folder: for whatever a part leaves: logs, pictures.
        seconds: the limit of the part.
    """

    device: str
    size: str
    folder: Path
    seconds: float

    @property
    def cpu(self) -> bool:
        return self.device == "cpu"

    @property
    def small(self) -> bool:
        return self.size == "small"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        name: what was looked at.
        verdict: PASSED, FAILED or SKIPPED.
        figure: the measured number, or the reason, in a few words.
        values: all numbers that were measured, by their names.
    """

    name: str
    verdict: str
    figure: str
    values: dict = field(default_factory=dict)

    def to_json(self) -> str:
        """The finding in one line of what Python reads as JSON: with NaN and Infinity."""
        return json.dumps(asdict(self))


def write(findings: Iterator[Finding], file: Path) -> None:
    """Write every finding as soon as it is there: what comes later may crash or hang."""
    with file.open("w", encoding="utf-8") as stream:
        for finding in findings:
            stream.write(finding.to_json() + "\n")
            stream.flush()


def read(file: Path) -> list[Finding]:
    """Return what was written so far; a line that was cut off is left out.

    A number that is not finite becomes None, since JSON has none.
    """
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8").split("\n")
    return [Finding(**json.loads(line, parse_constant=lambda _: None)) for line in lines[:-1]]


def verdict_of(findings: Iterable[Finding]) -> str:
    """Return FAILED if any failed, SKIPPED if nothing was applicable, else PASSED."""
    verdicts = {finding.verdict for finding in findings}
    return next((v for v in (FAILED, PASSED) if v in verdicts), SKIPPED)


def counted(
    findings: Sequence[Finding], figure: Callable[[Sequence[Finding]], str] | None = None
) -> str:
    """A line: how many passed, a figure of them, then those that did not."""
    passed = [f for f in findings if f.verdict == PASSED]
    failed = [f for f in findings if f.verdict == FAILED]
    skipped = [f for f in findings if f.verdict == SKIPPED]
    parts = [f"{len(passed)} of {len(passed) + len(failed)} passed"]
    if figure is not None and passed:
        parts.append(figure(passed))
    parts += [f"{f.name}: {f.figure}" for f in failed]
    for reason in dict.fromkeys(f.figure for f in skipped):
        names = ", ".join(f.name for f in skipped if f.figure == reason)
        parts.append(f"{names} not applicable: {reason}")
    return "; ".join(parts)
