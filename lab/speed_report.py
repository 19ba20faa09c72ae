"""Times as multiples of plain sampling and of FreeDoM: rows for a file, and a table to read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from .step_times import Takes

__all__ = ["BASELINE", "rows_of", "table"]

BASELINE = "FreeDoM, one backward"


def rows_of(plain: Takes, taken: Mapping[tuple[str, str], Takes]) -> list[dict]:
    """Rows of seconds and of multiples.

    Args:
        plain: what plain sampling takes.
        taken: what guided sampling takes, by preset and decoder; for each decoder there is one of
            the preset ``BASELINE``.
    """
    return [
        {
            "preset": preset,
            "decoder": decoder,
            **asdict(takes),
            "step_per_plain": takes.step / plain.step,
            "picture_per_plain": takes.picture / plain.picture,
            "picture_per_freedom": takes.picture / taken[BASELINE, decoder].picture,
        }
        for (preset, decoder), takes in taken.items()
    ]


def table(rows: Sequence[dict]) -> Iterator[str]:
    """Lines of Markdown; ``F + B`` are forwards and backwards of the dearest step."""
    yield (
        "| | a step, in plain ones | a picture, in plain ones | / FreeDoM's picture "
        "| model F + B | decoder F + B |"
    )
    yield "|---|---|---|---|---|---|"
    for row in rows:
        name = row["preset"] if row["preset"] == BASELINE else f"`{row['preset']}`"
        yield (
            f"| {name}, {row['decoder']} | {row['step_per_plain']:.2f} "
            f"| {row['picture_per_plain']:.2f} | {row['picture_per_freedom']:.2f} "
            f"| {_sum(row['denoiser_runs'])} | {_sum(row['decoder_runs'])} |"
        )


def _sum(both_ways: Sequence[int]) -> str:
    return " + ".join(map(str, both_ways))
