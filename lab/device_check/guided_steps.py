"""Peak memory and seconds of a guided step, beside a plain one: presets and decoders, real sizes.

Random weights, in the precision that people use. Two steps are taken, and the second is timed. On
a CUDA device the peak is that of the allocator, weights included; elsewhere it is what autograd
keeps for the backward.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .findings import FAILED, PASSED, SKIPPED, Finding, Setup

if TYPE_CHECKING:
    from zmagic.lab.sampling import Subject

GIB = 2**30
STEPS = 2
DEFAULT = "balanced"
# The presets and decoders that most people have come first, in case that time runs out.
PRESETS_FIRST = (DEFAULT, "fast", "FreeDoM baseline", "MPGD baseline")
SMALL_PRESETS = 2  # at the small size
DECODERS = ("vae", "taesd", "linear_rgb")
PLAIN = "plain"


def run(setup: Setup, title: str) -> Iterator[Finding]:
    """Yield a finding for the plain step, and one for each preset with each decoder."""
    import comfy.model_management as management
    import torch

    from zmagic.guidance.settings import PRESETS
    from zmagic.lab.sampling import real_subject

    fit = None if setup.small else _does_not_fit(title)
    if fit:
        yield Finding(title, SKIPPED, fit)
        return
    subject = _small(title) if setup.small else real_subject(_architecture(title))
    photograph = torch.rand(1, 3, subject.side, subject.side)
    plain = _measured(subject, subject.model)
    yield Finding(PLAIN, PASSED, _figure(plain), plain)
    presets = sorted(PRESETS, key=_place)
    for preset in presets[:SMALL_PRESETS] if setup.small else presets:
        for decoder in DECODERS:
            name = f"{preset}, {decoder}"
            try:
                yield _guided(subject, name, PRESETS[preset], decoder, photograph, plain)
            except management.OOM_EXCEPTION:
                management.unload_all_models()
                management.soft_empty_cache()
                yield Finding(name, SKIPPED, "does not fit into the device's memory")


def summary(findings: Sequence[Finding]) -> str:
    """The default preset with each decoder."""
    named = {f.name: f for f in findings}
    if PLAIN not in named:
        return "; ".join(f"{f.name}: {f.figure}" for f in findings)
    parts = [f"plain {named[PLAIN].figure}"]
    for decoder in DECODERS:
        found = named.get(f"{DEFAULT}, {decoder}")
        if found:
            parts.append(f"{found.name} {found.figure}")
    parts += [f"{f.name}: {f.figure}" for f in findings if f.verdict == FAILED]
    return "; ".join(parts)


def table(title: str, findings: Sequence[Finding]) -> list[str]:
    """Lines of a Markdown table: a row for each preset, a column for each decoder."""
    named = {f.name: f.figure for f in findings}
    if PLAIN not in named:
        return []
    presets = dict.fromkeys(name.rsplit(", ", 1)[0] for name in named if name != PLAIN)
    lines = [
        f"| {title}: a plain step takes {named[PLAIN]} | {' | '.join(DECODERS)} |",
        "|---|" + "---|" * len(DECODERS),
    ]
    for preset in presets:
        cells = (named.get(f"{preset}, {decoder}", "not measured") for decoder in DECODERS)
        lines.append(f"| {preset} | {' | '.join(cells)} |")
    return lines


def _place(preset: str) -> tuple[int, str]:
    known = PRESETS_FIRST.index(preset) if preset in PRESETS_FIRST else len(PRESETS_FIRST)
    return known, preset


def _guided(subject: "Subject", name: str, settings, decoder: str, photograph, plain: dict):
    from zmagic.host.hooks import HostSettings, attach
    from zmagic.lab.photograph import photograph_conditions

    traces = []
    kind, vae = subject.decoder(decoder)
    model = attach(
        subject.model,
        photograph_conditions(photograph),
        HostSettings(settings, kind),
        vae,
        traces.append,
    )
    values = _measured(subject, model)
    values["times_plain"] = values["seconds"] / plain["seconds"]
    values["warnings"] = list(traces[0].warnings)
    values["totals"] = traces[0].totals()
    warnings = traces[0].warnings
    if any("not enough memory" in warning for warning in warnings):
        return Finding(name, SKIPPED, "its backward does not fit into the device's memory", values)
    figure = f"{_figure(values)} ({values['times_plain']:.1f} x)"
    if warnings:
        figure += f", but: {warnings[0]}"
    good = not warnings and math.isfinite(values["rms"])
    return Finding(name, PASSED if good else FAILED, figure, values)


def _measured(subject: "Subject", model) -> dict:
    """Seconds of the last step, and the peak in GiB, of a sampling of two steps."""
    from zmagic.lab.sampling import sampled, sigmas_of

    from .peak_memory import peak_memory

    with peak_memory(model.load_device) as peak:
        made = sampled(subject, model, sigmas_of(model, STEPS))
    return {
        "seconds": made.seconds[-1],
        "peak_gib": peak.bytes / GIB,
        "peak_is": peak.meaning,
        "rms": float(made.samples.float().square().mean().sqrt()),
    }


def _figure(values: dict) -> str:
    peak = values["peak_gib"]
    memory = f"{peak:.1f} GiB" if peak >= 0.1 else f"{1024 * peak:.1f} MiB"
    return f"{memory}, {values['seconds']:.2f} s"


def _does_not_fit(title: str) -> str | None:
    """Return why the weights alone cannot be on the device, None if they can."""
    import comfy.model_management as management

    architecture = _architecture(title)
    wanted = architecture.parameters() * architecture.dtype.itemsize / GIB
    free = management.get_free_memory(management.get_torch_device()) / GIB
    if wanted * 1.1 <= free:
        return None
    return f"its weights alone take {wanted:.1f} GiB, and {free:.1f} GiB are free on the device"


def _architecture(title: str):
    from zmagic.lab.random_models import ARCHITECTURES

    return next(a for a in ARCHITECTURES if a.title == title)


def _small(title: str) -> "Subject":
    """The same architecture with few channels, for a picture of 32 pixels."""
    import torch

    from zmagic.lab.random_models import random_autoencoder, random_taesd
    from zmagic.lab.sampling import Subject
    from zmagic.tests.host.architectures import DIFFUSION

    kind = _architecture(title)
    with torch.inference_mode():
        specimen = DIFFUSION[title.lower().replace(".", "")]()
    return Subject(
        specimen.patcher,
        specimen.positive,
        specimen.negative,
        (1, kind.channels, 4, 4),
        kind.cfg,
        {"vae": random_autoencoder(kind.channels, 32), "taesd": random_taesd(kind.channels)},
    )
