"""Gradients of four architectures at small size against difference quotients of the host's output.

In single precision quotient and gradient are of the same function. In half precision every layer
rounds, by ``e`` = 5e-4 (float16) or 4e-3 (bfloat16) of its values, and a quotient with the relative
step ``h`` = 3e-3 would be off by ``e / h``: by all of it. So the weights stay the rounded ones, and
the quotient is taken of what the host computes with them in single precision: that is the function
whose derivative the half-precision one approximates. How far off it may be is measured, too: by how
much the prediction itself moves when it is computed in half precision. A backward is as many layers
again, so allowed is twice that; on a CPU it was at most half of it.
"""

from collections.abc import Iterator, Sequence

from .findings import FAILED, PASSED, Finding, Setup, counted

NAMES = ("sd15", "sdxl", "sd3", "flux")
DTYPES = ("float32", "float16", "bfloat16")
# The tolerance in single precision, as in the tests on the CPU.
SINGLE = 1e-3
FACTOR = 2.0
# What a model is asked about shall be the same in every precision: these are numbers that bfloat16
# holds exactly, also a thousandfold, which is how models embed them.
LEVEL, GUIDANCE = 0.5, 4.0


def run(setup: Setup) -> Iterator[Finding]:
    """Yield a finding for each architecture and precision."""
    for dtype in DTYPES:
        for name in NAMES:
            yield _checked(name, dtype)


def summary(findings: Sequence[Finding]) -> str:
    def worst(passed: Sequence[Finding]) -> str:
        closest = max(passed, key=lambda f: f.values["error"] / f.values["allowed"])
        return f"nearest to its limit {closest.name}, {closest.figure}"

    return counted(findings, worst)


def _checked(name: str, dtype_name: str) -> Finding:
    import torch

    from zmagic.host.gradients import normal
    from zmagic.tests.host.architectures import DIFFUSION
    from zmagic.tests.host.derivatives import gradient_error, relative, sample

    torch.manual_seed(0)
    dtype = getattr(torch, dtype_name)

    def sampled(compute, probe):
        with torch.inference_mode():
            specimen = DIFFUSION[name](dtype, compute)
        if specimen.sigma < 1.0:  # a share of noise
            specimen.sigma = LEVEL
        for _, values in (*specimen.positive, *specimen.negative):
            values["guidance"] = GUIDANCE
        return sample(specimen, probe)[1]

    def own(evaluation):
        with evaluation.differentiable():
            value = evaluation.denoise(normal(evaluation.x).requires_grad_())
        plain = evaluation.plain().float()
        found = relative(value.detach().float(), plain)
        return plain, evaluation.gradient(evaluation.x).float(), found

    plain, gradient, value_error = sampled(dtype, own)

    def reference(evaluation):
        error = gradient_error(evaluation.plain_energy, evaluation.x, gradient)
        return error, relative(plain, evaluation.plain())

    error, rounding = sampled(torch.float32, reference)
    allowed = SINGLE if dtype == torch.float32 else FACTOR * rounding + SINGLE
    good = error < allowed and value_error < max(1e-5, 2.0 * rounding)
    return Finding(
        f"{name} {dtype_name}",
        PASSED if good else FAILED,
        f"{error:.1e} of {allowed:.1e}",
        {
            "error": error,
            "allowed": allowed,
            "rounding_of_the_prediction": rounding,
            "difference_with_gradients_on": value_error,
        },
    )
