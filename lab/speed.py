"""Measure the cost of a guided step.

    python -m lab.speed    # about 15 minutes on 2 CPU cores

An SD1.5-sized UNet (the host's class, random weights), classifier-free guidance, a TAESD-type
decoder, three conditions; on an accelerator if there is one. Every preset and the literal method of
the paper (all n(n-1) pairs, double backward, nothing shared) make the same guided step in one
process; seconds are reported as ratios, beside the evaluations and the peak of what autograd keeps
for the backward.
"""

import json
import time
from dataclasses import replace

import torch

from .world import photograph_conditions  # first: it brings the host and the pack

# isort: split
from comfy.patcher_extension import WrappersMP
from nodes import common_ksampler

from zmagic.guidance.settings import PRESETS
from zmagic.guidance.trace import Trace
from zmagic.host.demo_model import load_autoencoder
from zmagic.host.gradients import differentiable, differentiable_options, normal
from zmagic.host.hooks import HostSettings, attach

from .command_line import described
from .random_models import SD15, random_model
from .saved_bytes import SavedBytes

LOOK_AHEAD = 0.1
BASELINE, LITERAL = "FreeDoM baseline", "literal"
# FreeDoM's own code takes one backward of the summed energies, normalized where they are summed.
ONE_BACKWARD = replace(PRESETS[BASELINE], gradient_path="image")
ROWS = {BASELINE: PRESETS[BASELINE], "FreeDoM, one backward": ONE_BACKWARD, **PRESETS}


def guided_step(model, side: int) -> None:
    """One euler step with CFG, of a picture of ``side`` pixels."""
    generator = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        cond, uncond = ([[torch.randn(1, 77, 768, generator=generator), {}]] for _ in range(2))
        empty = {"samples": torch.zeros(1, 4, side // 8, side // 8)}
        common_ksampler(model, 0, 1, 7.0, "euler", "normal", cond, uncond, empty)


def literal_model(model, vae, conditions, seconds: list[float]):
    """The paper taken literally, as a model patch: nothing is shared between the pairs."""

    def predict_noise(executor, x, timestep, model_options=None, seed=None):
        guider = executor.class_obj
        started = time.perf_counter()
        with differentiable(
            guider.model_patcher, [guider.inner_model, vae.first_stage_model], second_order=True
        ):
            options = differentiable_options(model_options)
            sigma = normal(timestep)

            def gradient(j: int, point: torch.Tensor) -> torch.Tensor:
                prediction = executor(point, sigma, options, seed)
                latent = guider.inner_model.process_latent_out(prediction)
                image = vae.process_output(vae.first_stage_model.decode(latent).float().clone())
                energy = conditions[j].energy(image)
                return torch.autograd.grad(energy.sum(), point, create_graph=True)[0]

            k = LOOK_AHEAD * float(sigma.max())
            for i in range(len(conditions)):
                for j in range(len(conditions)):
                    if i == j:
                        continue
                    point = normal(x).requires_grad_(True)
                    g_i = gradient(i, point)
                    ahead = normal(point - k * g_i).requires_grad_(True)
                    v = gradient(j, ahead).detach()
                    torch.autograd.grad(g_i, point, v)
        seconds.append(time.perf_counter() - started)
        return executor(x, timestep, model_options, seed)

    model = model.clone()
    model.set_additional_models("literal", [vae.patcher])
    model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "literal", predict_noise)
    return model


def measure_preset(name: str, model, vae, conditions, side: int) -> dict:
    traces: list[Trace] = []
    guided = attach(model, conditions, HostSettings(ROWS[name]), vae, traces.append)
    guided_step(guided, side)
    step = traces[0].totals()  # with time travel several evaluations
    return {
        "seconds": step["seconds"],
        "denoiser": [step["forwards"]["denoiser"], step["backwards"].get("denoiser", 0)],
        "decoder": [step["forwards"]["decoder"], step["backwards"].get("decoder", 0)],
        "energy_calls": step["energy_calls"],
    }


def measure_literal(model, vae, conditions, side: int) -> dict:
    seconds: list[float] = []
    guided_step(literal_model(model, vae, conditions, seconds), side)
    pairs = len(conditions) * (len(conditions) - 1)
    counts = [2 * pairs, 4 * pairs]  # a double backward counts as two
    return {
        "seconds": seconds[0],
        "denoiser": counts,
        "decoder": counts,
        "energy_calls": 2 * pairs,
    }


def main() -> None:
    parser = described("speed", __doc__)
    parser.add_argument(
        "--repeats",
        type=int,
        default=2,
        help="How often each preset's step is made; the fastest one counts. Default: %(default)s.",
    )
    parser.add_argument(
        "--side",
        type=int,
        default=256,
        help="Side of the picture in pixels, a multiple of 64. Default: %(default)s.",
    )
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=["float32", "float16", "bfloat16"],
        help="Precision of the UNet's weights and products. Default: %(default)s.",
    )
    parser.add_argument("--json", help="File that gets the rows, too. Default: none is written.")
    options = parser.parse_args()
    model = random_model(SD15, getattr(torch, options.dtype), torch.device("cpu"))
    with torch.inference_mode():
        vae = load_autoencoder()
    side = options.side
    photograph = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(2))
    conditions = photograph_conditions(photograph)

    rows: dict[str, dict] = {}
    for name in (*ROWS, LITERAL):
        repeats = 1 if name == LITERAL else options.repeats
        for _ in range(repeats):
            account = SavedBytes()
            with account.watching():
                if name == LITERAL:
                    row = measure_literal(model, vae, conditions, side)
                else:
                    row = measure_preset(name, model, vae, conditions, side)
            row["saved_mib"] = round(account.peak / 2**20)
            if name not in rows or row["seconds"] < rows[name]["seconds"]:
                rows[name] = row
        print(f"{name}: {rows[name]}", flush=True)

    print("\n| | seconds | / FreeDoM | / literal | denoiser F + B | decoder F + B | saved MiB |")
    print("|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        row["per_freedom"] = row["seconds"] / rows[BASELINE]["seconds"]
        row["per_literal"] = row["seconds"] / rows[LITERAL]["seconds"]
        print(
            f"| {name} | {row['seconds']:.1f} | {row['per_freedom']:.2f} | "
            f"{row['per_literal']:.3f} | {row['denoiser'][0]} + {row['denoiser'][1]} | "
            f"{row['decoder'][0]} + {row['decoder'][1]} | {row['saved_mib']} |"
        )
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
