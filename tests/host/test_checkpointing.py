"""Gradients through blocks that run again in the backward pass, against those that save all.

Whatever the host or another pack does inside a block has to be done again, in the same way.
"""

import comfy.model_management
import pytest
import torch
from torch import Tensor, nn

from zmagic.host.blocks import repeated_blocks
from zmagic.host.gradients import differentiable, normal
from zmagic.lab.saved_bytes import SavedBytes

from . import architectures
from .derivatives import one_thread, relative, sample
from .quantized_layers import CastingOperations, MultiplyingOperations, quantize
from .test_gradients_conditions import CASES
from .test_gradients_weights import _quantized_flux
from .test_neighbors_hooks import NEIGHBORS

CLOSE = 1e-5
BLOCKS = {
    "sd15": {"ResBlock", "BasicTransformerBlock"},
    "sdxl": {"ResBlock", "BasicTransformerBlock"},
    "sd3": {"JointBlock"},
    "flux": {"SingleStreamBlock"},  # the small one has only one double block
    "lumina2": {"JointTransformerBlock"},
    "z_image": {"JointTransformerBlock"},
    "qwen_image": {"QwenImageTransformerBlock"},
    "wan": {"WanAttentionBlock"},
    "cosmos_predict2": {"Block"},
}


def _compared(evaluation):
    """The error of the checkpointed gradient, and bytes saved with and without."""
    gradients, peaks = [], []
    for checkpoint in (False, True):
        with SavedBytes(evaluation.guider.inner_model).watching() as saved:
            gradients.append(evaluation.gradient(evaluation.x, checkpoint=checkpoint))
        peaks.append(saved.peak)
        assert saved.live == 0
    return relative(gradients[1], gradients[0]), *peaks


@pytest.mark.parametrize("name", architectures.DIFFUSION)
def test_every_architecture(name):
    with torch.inference_mode():
        specimen = architectures.DIFFUSION[name]()
    assert {type(block).__name__ for block in repeated_blocks([specimen.patcher.model])} == (
        BLOCKS[name]
    )
    _, (error, plain, checkpointed) = sample(specimen, _compared)
    print(f"\n{name}: {error:.1e}, saved {plain / 1e6:.2f} MB, {checkpointed / 1e6:.2f}")
    assert error < CLOSE
    assert checkpointed < 0.8 * plain


class _Plain(nn.Module):
    """A module with a forward, around any members."""

    def __init__(self, **members: nn.Module) -> None:
        super().__init__()
        for name, member in members.items():
            self.add_module(name, member)

    def forward(self, x: Tensor) -> Tensor:
        return x


class _Expert(_Plain):
    pass


class _Stack(_Plain):
    pass


def _linears(count: int) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(2, 2) for _ in range(count)))


def test_a_block_with_experts_is_one_and_a_stack_of_blocks_is_not():
    experts = [_Expert(layers=_linears(2)) for _ in range(4)]
    blocks = [_Plain(attention=_linears(6), experts=nn.ModuleList(experts[k::2])) for k in (0, 1)]
    assert repeated_blocks([nn.Sequential(*blocks)]) == blocks
    stacks = [_Stack(project=_linears(2), blocks=nn.Sequential(block)) for block in blocks]
    assert repeated_blocks([nn.ModuleList(stacks)]) == blocks


def test_single_layers_lists_and_what_stands_alone_are_no_blocks():
    network = nn.Sequential(_linears(3), nn.ModuleList([_linears(2), _linears(2)]), _Plain())
    alone = nn.ModuleList([_Plain(layers=_linears(3)), _Expert(layers=_linears(3))])
    assert repeated_blocks([network, alone]) == []


@pytest.mark.parametrize("name", ["kl_vae", "taesd", "wan_vae", "clip_vision"])
def test_decoders_and_encoders(name):
    with torch.inference_mode():
        model = getattr(architectures, name)()
        module = getattr(model, "first_stage_model", model)
        frames = (3,) if name == "wan_vae" else ()
        x = torch.randn(1, 4, *frames, 4, 4)
        f = module.decode if name != "clip_vision" else lambda x: module(x)[2]
        if name == "clip_vision":
            x = torch.rand(1, 3, 32, 32)
    assert len(repeated_blocks([module])) > 1
    gradients, peaks = [], []
    with torch.inference_mode(), one_thread():
        for checkpoint in (False, True):
            watched = SavedBytes(module).watching()
            with watched as saved, differentiable(None, [module], checkpoint=checkpoint):
                start = normal(x).requires_grad_()
                out = f(start)
                cotangent = torch.linspace(-1, 1, out.numel()).reshape(out.shape)
                gradients.append(torch.autograd.grad(out, start, cotangent)[0])
                del out
            peaks.append(saved.peak)
    assert relative(gradients[1], gradients[0]) < CLOSE
    assert peaks[1] < peaks[0]


@pytest.mark.parametrize("name", CASES)
def test_what_the_hosts_nodes_attach(name):
    """LoRA hooks among them: a block runs again with the weights of its conditioning."""
    with torch.inference_mode():
        specimen = architectures.sd15()
        arguments = CASES[name](specimen)
        offload = arguments.pop("offload", False)

    def probe(evaluation):
        patcher = evaluation.guider.model_patcher
        if offload:
            patcher.partially_unload(patcher.offload_device, 1e30)
        return _compared(evaluation)

    _, (error, plain, checkpointed) = sample(specimen, probe, **arguments)
    assert error < CLOSE
    assert checkpointed < 0.8 * plain


@pytest.mark.parametrize("name", NEIGHBORS)
def test_what_other_packs_attach(name):
    with torch.inference_mode():
        specimen = architectures.sd15()
        NEIGHBORS[name](specimen.patcher)
    _, (error, plain, checkpointed) = sample(specimen, _compared)
    assert error < CLOSE
    assert checkpointed < 0.8 * plain


def _cast(name):
    return lambda: architectures.DIFFUSION[name](torch.float16, torch.float32)


def _other_packs(name, operations):
    def build():
        specimen = architectures.with_operations(architectures.DIFFUSION[name](), operations)
        quantize(specimen.patcher.model)
        return specimen

    return build


WEIGHTS = {
    "half, cast, UNet": _cast("sd15"),
    "half, cast, DiT": _cast("flux"),
    "fp8": _quantized_flux,
    "another pack's cast": _other_packs("sd15", CastingOperations),
    "another pack's forward": _other_packs("flux", MultiplyingOperations),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_every_form_of_a_weight(name):
    with torch.inference_mode():
        specimen = WEIGHTS[name]()
    error, *_ = sample(specimen, _compared)[1]
    assert error < CLOSE


def _drawing(model, seen):
    model.set_model_attn1_output_patch(lambda n, options: n + 0.1 * torch.randn_like(n))


def _told_where(model, seen):
    """It acts in one block only, by what the host writes into its options from block to block."""

    def patch(n, options):
        seen.append((options["block"], options["block_index"]))
        return n * (0.5 if options["block"] == ("output", 0) else 1.0)

    model.set_model_attn1_output_patch(patch)


def _writing_into_options(model, seen):
    def patch(n, options):
        options["calls"] = options.get("calls", 0) + 1
        seen.append(options["calls"])
        return n * (1.0 + 0.1 * options["calls"])

    model.set_model_attn1_output_patch(patch)


def _carrying(model, seen):
    """One block hands a tensor with a gradient to another one, past the arguments of both."""

    def patch(n, options):
        if options["block"] == ("middle", 0):
            model.carried = n.mean(1, keepdim=True)
        if options["block"] == ("output", 0):
            return n + model.carried.repeat_interleave(n.shape[2] // model.carried.shape[2], 2)
        return n

    model.set_model_attn1_output_patch(patch)


@pytest.mark.parametrize("patch", [_drawing, _told_where, _writing_into_options, _carrying])
def test_a_block_sees_again_what_it_saw(patch):
    with torch.inference_mode():
        specimen = architectures.sd15()
        patch(specimen.patcher, seen := [])

    def probe(evaluation):
        error, *_ = _compared(evaluation)
        seen.clear()
        evaluation.gradient(evaluation.x, checkpoint=True)
        return error, list(seen)

    error, calls = sample(specimen, probe)[1]
    assert error < CLOSE
    forward, backward = calls[: len(calls) // 2], calls[len(calls) // 2 :]
    assert sorted(map(str, forward)) == sorted(map(str, backward))  # in another order


def test_global_random_numbers_are_left_as_they_are():
    with torch.inference_mode():
        specimen = architectures.sd15()
        _drawing(specimen.patcher, [])

    def probe(evaluation):
        drawn = []
        for checkpoint in (False, True):
            evaluation.gradient(evaluation.x, checkpoint=checkpoint)
            drawn.append(torch.rand(3))
        return drawn

    first, second = sample(specimen, probe)[1]
    assert torch.equal(first, second)


class _Block(nn.Module):
    """It writes into what it is given, takes tensors from containers, and returns several."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x: Tensor, *, more: dict) -> dict:
        x += self.linear(self.norm(x))
        more["pair"][1].mul_(0.9)
        more["count"] += 1
        return {"out": (x * more["pair"][1].tanh(), [x.exp()]), "count": more["count"]}


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        more = {"pair": (None, x.sin()), "count": 0}
        total = torch.zeros(())
        for block in self.blocks:
            seen = x  # the block writes into it, and what it holds afterwards counts
            result = block(x, more=more)
            x, (other,) = result["out"]
            total = total + (seen * other * more["pair"][1]).sum() * result["count"]
        assert more["count"] == 3
        return total


def test_blocks_that_write_into_their_inputs():
    network = architectures.random_weights(_Network().requires_grad_(False))
    point = torch.randn(2, 8, generator=torch.Generator().manual_seed(3))
    found = []
    for checkpoint in (False, True):
        with differentiable(None, [network], checkpoint=checkpoint):
            x = normal(point).requires_grad_()
            y = network(x)
            first = torch.autograd.grad(y, x, retain_graph=True)[0]
            again = torch.autograd.grad(y, x)[0]
        assert torch.equal(first, again)
        found.append((y.detach(), first))
    assert all(relative(b, a) < CLOSE for a, b in zip(*found, strict=True))


def test_a_block_that_does_something_else_is_said():
    class Counting(nn.Module):
        calls = 0

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(4, 4), nn.Tanh())

        def forward(self, x: Tensor) -> Tensor:
            Counting.calls += 1
            return self.layers(x).sin() if Counting.calls > 2 else self.layers(x)

    network = nn.Sequential(Counting(), Counting()).requires_grad_(False)
    with differentiable(None, [network], checkpoint=True):
        x = torch.randn(3, 4).requires_grad_()
        with pytest.raises(RuntimeError, match="something else in the backward pass"):
            torch.autograd.grad(network(x).sum(), x)


def test_a_backward_after_the_block_says_why_it_cannot_be():
    network = architectures.random_weights(_Network().requires_grad_(False))
    with differentiable(None, [network], checkpoint=True):
        x = torch.randn(2, 8).requires_grad_()
        y = network(x)
    with pytest.raises(RuntimeError, match="dropped"):
        torch.autograd.grad(y, x)


Interrupt = comfy.model_management.InterruptProcessingException


@pytest.mark.parametrize("calls", [3, 12, 20], ids=["forward", "backward", "never"])
def test_an_interruption_leaves_nothing_behind(calls):
    """After so many calls of attention, of which the second half is made by blocks again."""
    with torch.inference_mode():
        specimen = architectures.sd15()
    before, _ = sample(specimen)
    made = []

    def interrupt(n, options):
        made.append(len(made))
        if len(made) == calls:
            comfy.model_management.interrupt_current_processing()
        return n

    def probe(evaluation):
        modules = list(specimen.patcher.model.modules())
        state = [dict(vars(module)) for module in modules]
        inner = evaluation.options["transformer_options"]
        patches = {"attn1_output_patch": [interrupt]}
        evaluation.options = evaluation.options | {
            "transformer_options": inner | {"patches": patches}
        }
        caught = None
        try:
            evaluation.gradient(evaluation.x, checkpoint=True)
        except Interrupt:
            caught = len(made)
        assert [dict(vars(module)) for module in modules] == state
        return caught

    _, caught = sample(specimen, probe)
    assert caught == (None if calls == 20 else calls)
    assert calls == 20 or len(made) == calls
    assert torch.equal(sample(specimen)[0], before)


def test_under_second_derivatives_and_inside_another_block_it_stays_off():
    network = architectures.random_weights(_Network().requires_grad_(False))
    block = network.blocks[0]
    with differentiable(None, [network], checkpoint=True, second_order=True):
        assert "forward" not in vars(block)
    with differentiable(None, []), differentiable(None, [network], checkpoint=True):
        assert "forward" not in vars(block)
    with differentiable(None, [network], checkpoint=True):
        assert "forward" in vars(block)
    assert "forward" not in vars(block)
