"""Differentiate the host's models where they stand: no copy, no reload, any loader.

    with differentiable(guider.model_patcher, [guider.inner_model, *others]):
        x = normal(x).requires_grad_(True)
        denoised = executor(x, normal(sigma), differentiable_options(model_options), seed)
        (gradient,) = torch.autograd.grad(denoised, x, cotangent)

The host runs a whole prompt in inference mode and loads weights in it. Leaving that mode is
necessary and not sufficient; safe_ops.py and moving_weights.py say what else is, and why.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import comfy.cli_args
import comfy.model_management
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .attention import differentiable_attention, differentiable_by_name
from .checkpointing import Call, checkpointed, plainly
from .moving_weights import recast_in_backward
from .safe_ops import SafeOps
from .saved_tensors import SavedTensors
from .weight_hooks import hooked_modules

__all__ = ["differentiable", "differentiable_options", "normal"]


@contextmanager
def differentiable(
    patcher: Any,
    modules: Iterable[nn.Module],
    *,
    second_order: bool = False,
    checkpoint: bool = False,
) -> Iterator[Call]:
    """Make the frozen ``modules`` differentiable in their inputs inside the block.

    Inference mode is off and gradients are on, also under an outer ``no_grad``; weights are
    constants that are not kept for the backward pass; compiled models run eagerly. Code of other
    packs may write in place into anything, also into what autograd has saved.

    The backward pass belongs inside the block: at its end all that was saved is dropped, whoever
    keeps a tensor with a graph; a backward after that raises a RuntimeError. On every exit, an
    interruption by the user included (a BaseException, raised in the forward or in the backward
    pass), all is as it was before. Blocks may be nested; the outermost drops what was saved.

    A result that does not depend on the input by differentiable operations has
    ``requires_grad == False``: parameters never require a gradient inside the block.

    Args:
        patcher: the ModelPatcher of the diffusion model, whose hooks may rewrite weights between
            two conditionings; None for models without hooks (a VAE, an attribute network).
        modules: all modules that will run: diffusion model, control nets, VAE, attribute networks.
            Host layers below them are recast in backward; other layers work as well as long as
            their weights stay in place, as those of every fully loaded model do.
        second_order: whether gradients will be differentiated again (Hessian-vector products).
            Attention then forms its full matrix: exact, and slower than the fused kernels.
        checkpoint: whether blocks save only their inputs and run once more in each backward pass:
            less memory, more time. Without effect under ``second_order`` and in an inner block.

    Yields:
        A function that calls another one, ``call(function, *args, **kwargs)``: as a block, where
        blocks save only their inputs.
    """
    hooked, modules = hooked_modules(patcher), list(modules)
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_training_paths())
        stack.enter_context(differentiable_by_name())
        stack.enter_context(_eager())
        stack.enter_context(_nothing_recorded())
        if second_order:  # for attention inside torch's own layers, which SafeOps does not see
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(recast_in_backward(patcher, modules, hooked))
        own = SavedTensors()
        saved = stack.enter_context(own.watching())
        operations = stack.enter_context(SafeOps(saved, second_order=second_order))
        call: Call = plainly
        if checkpoint and saved is own and not second_order:
            call = stack.enter_context(checkpointed(patcher, modules, saved, operations))
        yield call


@contextmanager
def _training_paths() -> Iterator[None]:
    """The host's own switch from fused inference kernels to torch operations, where it has one."""
    management = comfy.model_management
    if not hasattr(management, "in_training"):
        yield
        return
    previous = management.in_training
    management.in_training = True
    try:
        yield
    finally:
        management.in_training = previous


@contextmanager
def _eager() -> Iterator[None]:
    """Compiled models run uncompiled: graphs made for inference have no derivative."""
    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        yield  # nothing has been compiled in this process, and the import would take seconds
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def _nothing_recorded() -> Iterator[None]:
    """Newer hosts record a forward's allocations and replay them: saved tensors cannot lie there.

    Their own switches, set while an evaluation runs; hosts without them have nothing to switch.
    """
    args = comfy.cli_args.args
    with ExitStack() as stack:
        for name in ("disable_comfy_compiler", "disable_cuda_graphs"):
            if hasattr(args, name):
                stack.callback(setattr, args, name, getattr(args, name))
                setattr(args, name, True)
        yield


def normal(tensor: Tensor) -> Tensor:
    """Return an ordinary leaf copy of any tensor, an inference tensor included, in any mode."""
    with torch.inference_mode(False):
        return tensor.detach().clone()


def differentiable_options(model_options: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of ``model_options`` for an evaluation inside ``differentiable``.

    - Attention kernels without a derivative (sage, flash, xformers, or another pack's) are replaced
      by torch's, and on the CPU the host's own by torch's fused one, equal up to rounding. An
      override that another pack has set stays, around the replaced kernel. Without
      this such a kernel would drop its part of the gradient, silently or with an error.
    - One device: the host evaluates several in threads, without gradients.
    """
    options = {key: value for key, value in model_options.items() if key != "multigpu_clones"}
    transformer_options = dict(options.get("transformer_options", {}))
    transformer_options["optimized_attention_override"] = differentiable_attention(
        transformer_options.get("optimized_attention_override")
    )
    options["transformer_options"] = transformer_options
    return options
