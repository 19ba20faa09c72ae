"""The host's fused kernels, those that write into their inputs too: first and second derivatives.

The reference is ordinary autograd through the package's eager formulas.
"""

import pytest
import torch

from zmagic.host.gradients import differentiable, normal

from .derivatives import relative

ck = pytest.importorskip("comfy_kitchen", reason="this host has no kernel package")
rope = pytest.importorskip("comfy_kitchen.backends.eager.rope")
HEADS, TOKENS, WIDTH = 2, 6, 8


def _inputs() -> tuple[torch.Tensor, ...]:
    """A packed projection of queries and keys, rotations, and scales of the norm."""
    packed = torch.randn(1, HEADS, TOKENS, 2 * WIDTH)
    angle = torch.randn(1, 1, TOKENS, WIDTH // 2)
    turn = torch.stack((angle.cos(), -angle.sin(), angle.sin(), angle.cos()), -1)
    return packed, turn.unflatten(-1, (2, 2)), torch.rand(WIDTH) + 0.5


def _plain(name: str, q, k, freqs, scale) -> tuple[torch.Tensor, ...]:
    formula = getattr(rope, name)
    scales = (scale,) if name.startswith("rms") else ()
    return (formula(q, freqs, *scales),) if name[-1] == "1" else formula(q, k, freqs, *scales)


@pytest.mark.parametrize("split_half", ["", "_split_half"])
@pytest.mark.parametrize("count", ["", "1"])
@pytest.mark.parametrize("kind", ["apply", "rms"])
def test_kernels_that_write_into_their_inputs(kind, count, split_half):
    name = f"{kind}_rope{split_half}{count}"
    kernel = getattr(ck, f"{name}_", None)
    if kernel is None:
        pytest.skip(f"this host's kernel package has no {name}_")
    packed, freqs, scale = _inputs()

    def rotated(x: torch.Tensor, in_place: bool) -> torch.Tensor:
        """Rotate a layer's result, which autograd has saved (squared), as a model does."""
        hidden = x * 2
        squares = hidden.square()
        q, k = hidden[..., :WIDTH], hidden[..., WIDTH:]
        if not in_place:
            hidden = torch.cat((*_plain(name, q, k, freqs, scale), *([k] if count else [])), -1)
        else:
            scales = [scale] if kind == "rms" else []
            kernel(*([q] if count else [q, k]), freqs, *scales)
        return (hidden.sin() + squares).pow(2).sum()

    def derivatives(in_place: bool):
        x = normal(packed).requires_grad_()
        (g,) = torch.autograd.grad(rotated(x, in_place), x, create_graph=True)
        return g.detach(), torch.autograd.grad(g.sin().sum(), x)[0]

    expected = derivatives(False)
    with torch.inference_mode(), differentiable(None, [], second_order=True):
        found = derivatives(True)
    assert relative(found[0], expected[0]) < 1e-5
    assert relative(found[1], expected[1]) < 1e-5
