"""Count what guidance costs on models that people have, as multiples of plain sampling.

    python -m lab.cost    # half a minute; the same on every machine

Operations are counted, not timed: the host's own models, decoders and the attribute networks that
people have, at real sizes on the meta device, without weights. How often a guided step runs them is
what the engine itself does. In brackets: model + decoder + attribute networks.
"""

import json
from dataclasses import asdict
from pathlib import Path

from scripts.headless import load_host, load_pack

load_pack()
load_host()  # on the CPU: nothing is computed

from zmagic.guidance.settings import PRESETS  # noqa: E402

from .command_line import described  # noqa: E402
from .evaluations import STEPS  # noqa: E402
from .multiples import guidance_of, prices, report  # noqa: E402
from .random_models import ARCHITECTURES  # noqa: E402


def main() -> None:
    titles = {kind.title: kind for kind in ARCHITECTURES}
    parser = described("cost", __doc__)
    parser.add_argument(
        "--models",
        nargs="+",
        choices=list(titles),
        default=list(titles),
        help="Models that are guided. Default: all.",
    )
    parser.add_argument(
        "--presets",
        nargs="+",
        choices=list(PRESETS),
        default=list(PRESETS),
        help="Presets that guide. Default: all.",
    )
    parser.add_argument(
        "--conditions",
        nargs="+",
        type=int,
        choices=range(1, 6),
        default=list(range(1, 6)),
        help="Numbers of conditions, which take the attribute networks in turn. Default: 1 to 5.",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=STEPS,
        help=f"Sampler steps of a picture. Default: {STEPS}.",
    )
    parser.add_argument(
        "--json", type=Path, help="File that gets the counts, too. Default: none is written."
    )
    options = parser.parse_args()
    counted = prices(titles[title] for title in options.models)
    rows = guidance_of(counted, options.presets, options.conditions, options.steps)
    print("\n".join(report(counted, rows, options.steps)))
    if options.json:
        content = {
            "parts": [asdict(price) for price in counted],
            "guidance": [row.plain() for row in rows],
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
