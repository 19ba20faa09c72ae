"""Measure what each gradient path buys and costs.

    python -m lab.paths    # minutes on 2 CPU cores

The demo model, one photograph, three conditions (colors, edges, likeness), the same noise and
strength for every row. An energy is given relative to the unguided image: 1 is no effect, lower
is better. Seconds are the engine's, per guided step and image; they compare within one run.
"""

import json
from dataclasses import replace

import torch

from .world import DemoWorld, photograph_conditions  # first: it brings the host and the pack

# isort: split
from zmagic.guidance.settings import CHOICES, PRESETS, GuidanceSettings
from zmagic.host.demo_model import load_photograph

from .command_line import described
from .methods import sampler_of


def rows(strength: float) -> dict[str, GuidanceSettings]:
    """The presets, and every gradient path with dependent and with independent conditions."""
    table = {f"preset {name}": settings for name, settings in PRESETS.items()}
    for path in CHOICES["gradient_path"]:
        dependent = replace(PRESETS["faithful"], gradient_path=path)
        independent = replace(dependent, dependence="off", balance="sum")
        table |= {f"{path}, dependent": dependent, f"{path}, independent": independent}
    distinct: dict[GuidanceSettings, list[str]] = {}
    for name, settings in table.items():
        distinct.setdefault(replace(settings, strength=strength), []).append(name)
    return {" = ".join(names): settings for settings, names in distinct.items()}


def main() -> None:
    parser = described("paths", __doc__)
    parser.add_argument(
        "--strength",
        type=float,
        default=0.3,
        help="Strength of the guidance in every row. Default: %(default)g.",
    )
    parser.add_argument(
        "--steps", type=int, default=12, help="Steps of the sampler. Default: %(default)s."
    )
    parser.add_argument(
        "--images", type=int, default=4, help="Pictures of each row. Default: %(default)s."
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="Seed of the noise. Default: %(default)s."
    )
    parser.add_argument("--json", help="File that gets the rows, too. Default: none is written.")
    options = parser.parse_args()

    world = DemoWorld()
    conditions = photograph_conditions(load_photograph().movedim(-1, 1))
    run = {"seed": options.seed, "steps": options.steps, "batch": options.images}

    def final(settings: GuidanceSettings):
        _, trace = world.sample(conditions, settings, **run, sampler=sampler_of(settings))
        return torch.tensor([trace.final[c.name] for c in conditions]), trace.totals()  # [n, B]

    unguided, _ = final(GuidanceSettings(strength=0.0))
    names = " | ".join(c.name for c in conditions)
    print(f"| settings | mean energy | {names} | denoiser F + B per step | s per step and image |")
    print("|---|" + "---|" * (len(conditions) + 3))
    results = {}
    for name, settings in rows(options.strength).items():
        energies, totals = final(settings)
        relative = (energies / unguided).mean(1)
        forwards, backwards = (
            totals[kind].get("denoiser", 0) // options.steps for kind in ("forwards", "backwards")
        )
        seconds = totals["seconds"] / options.steps / options.images
        each = " | ".join(f"{value:.3f}" for value in relative.tolist())
        print(
            f"| {name} | {relative.mean():.3f} | {each} | {forwards} + {backwards} | "
            f"{seconds:.2f} |",
            flush=True,
        )
        results[name] = {"relative_energies": relative.tolist(), "seconds": seconds}
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
