"""Write the figures of all trained networks into the model card, demo_models/README.md.

    python -m lab.training.card

The figures are those of the reports beside the weights, so that the card cannot say anything else.
"""

import json
from collections.abc import Iterator

from ..command_line import described
from .running import DEMO_MODELS, EVALUATORS, write_whole

__all__ = ["CARD", "table", "with_table"]

CARD = DEMO_MODELS / "README.md"
BEGIN, END = "<!-- figures: python -m lab.training.card -->", "<!-- end of figures -->"

# What is not a figure of merit: it has a column of its own, or none.
OF_THE_RUN = (
    "network", "parameters", "seed", "precision", "device", "batch", "steps", "minutes",
)  # fmt: skip


def main() -> None:
    described("training.card", __doc__).parse_args()
    text = with_table(CARD.read_text(encoding="utf-8"))
    write_whole(CARD, lambda new: new.write_text(text, encoding="utf-8"))
    print(table())


def with_table(text: str) -> str:
    """The card with the present figures between its two marks.

    Raises:
        ValueError: a mark is missing.
    """
    if BEGIN not in text or END not in text:
        raise ValueError(f"expected the lines '{BEGIN}' and '{END}' in {CARD}")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}{END}{after}"


def table() -> str:
    """A row for each network that has a report."""
    lines = ["| network | parameters | training | on people it has not seen |", "|---|---|---|---|"]
    for folder in (DEMO_MODELS, EVALUATORS):
        for file in sorted(folder.glob("*_figures.json")):
            report = json.loads(file.read_text(encoding="utf-8"))
            merits = {name: report[name] for name in report if name not in OF_THE_RUN}
            lines.append(
                f"| `{report['network']}` | {report['parameters'] / 1e6:.2f} M "
                f"| {report['steps']} steps of {report['batch']}, {report['minutes']:.1f} min, "
                f"{report['device']} "
                f"| {'; '.join(_figures(merits))} |"
            )
    return "".join(line + "\n" for line in lines)


def _figures(report: dict) -> Iterator[str]:
    for name, value in report.items():
        yield (
            f"{name}: {', '.join(_figures(value))}"
            if isinstance(value, dict)
            else f"{name} {value}"
        )


if __name__ == "__main__":
    main()
