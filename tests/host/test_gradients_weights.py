"""Derivatives for every form in which the host keeps a weight."""

import json

import comfy.ops
import comfy.quant_ops
import comfy.supported_models
import pytest
import torch
from torch import Tensor, nn

from zmagic.host.gradients import differentiable, normal

from . import architectures
from .derivatives import relative, repeated, sample


def _errors(evaluation):
    return evaluation.gradient_error(), evaluation.hessian_error()


@pytest.mark.parametrize("weights", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["sd15", "flux", "wan"])
def test_half_precision_weights_cast_by_the_host(name, weights):
    with torch.inference_mode():
        specimen = architectures.DIFFUSION[name](weights, torch.float32)
    _, (first, second) = sample(specimen, _errors)
    print(f"\n{name} {weights} gradient {first:.1e}  hessian {second:.1e}")
    assert first < 1e-3
    assert second < 2e-3


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 1e-2), (torch.bfloat16, 1e-1)])
def test_half_precision_throughout(dtype, tolerance):
    """No difference quotient here; the gradient of the same weights in full precision instead."""
    found = {}
    for compute in (dtype, torch.float32):
        with torch.inference_mode():
            specimen = architectures.sd15(dtype, compute)
        _, found[compute] = sample(specimen, lambda e: e.gradient(e.x))
    error = relative(found[dtype], found[torch.float32])
    print(f"\n{dtype} {error:.1e}")
    assert error < tolerance


def test_weights_that_vanish_after_their_layer(monkeypatch):
    """An offloaded weight lies in a buffer that the next layer reuses: here it becomes NaN."""

    def derivatives(evaluation):
        direction = torch.ones_like(evaluation.x)
        return evaluation.gradient(evaluation.x), evaluation.hessian_product(
            evaluation.x, direction
        )

    with torch.inference_mode():
        specimen = architectures.sd15(torch.float16, torch.float32)
    _, expected = sample(specimen, derivatives)

    uncast = comfy.ops.uncast_bias_weight
    destroyed = []

    def destroy(module, weight, bias, buffer):
        uncast(module, weight, bias, buffer)
        if weight is not None:
            assert weight.data_ptr() != module.weight.data_ptr()
            destroyed.append(weight.fill_(torch.nan))

    monkeypatch.setattr(comfy.ops, "uncast_bias_weight", destroy)
    _, found = sample(specimen, derivatives)
    assert destroyed
    for value, reference in zip(found, expected, strict=True):
        assert repeated(value, reference)


def test_constants_rewritten_before_the_backward_pass():
    """Hooks rewrite a model's bare parameters in this way."""
    with torch.inference_mode():
        scale = nn.Parameter(torch.randn(5))
        before = scale.clone()
        with differentiable(None, []):
            x = normal(scale).requires_grad_()
            y = (x * scale).sum()
            scale.data.copy_(torch.zeros(5))
            (gradient,) = torch.autograd.grad(y, x)
        assert torch.equal(gradient, before)
        assert not scale.any()


def _quantized_flux() -> architectures.Specimen:
    """Flux with every attention and MLP weight in fp8, loaded as from a quantized file.

    Its products are in full precision also where the device has fp8 ones: those round their inputs,
    and no difference quotient sees through that.
    """
    specimen = architectures.flux()
    weights = {}
    for name, weight in specimen.patcher.model.diffusion_model.state_dict().items():
        weights[name] = weight
        if weight.ndim == 2 and "blocks" in name and name.endswith(".weight"):
            scale = weight.abs().max() / 448
            layer = name.removesuffix("weight")
            weights[name] = (weight / scale).to(torch.float8_e4m3fn)
            weights[f"{layer}weight_scale"] = scale
            layout = {"format": "float8_e4m3fn", "full_precision_matrix_mult": True}
            quant = json.dumps(layout).encode()
            weights[f"{layer}comfy_quant"] = torch.tensor(list(quant), dtype=torch.uint8)
    config = comfy.supported_models.Flux(specimen.patcher.model.model_config.unet_config)
    config.set_inference_dtype(torch.float32, None)
    config.quant_config = {"mixed_ops": True}
    model = config.get_model({}, "", device="cpu").load_model_weights(weights)
    specimen.patcher = architectures.patcher(model)
    return specimen


def test_quantized_model():
    with torch.inference_mode():
        specimen = _quantized_flux()
    layers = [
        module
        for module in specimen.patcher.model.modules()
        if isinstance(getattr(module, "weight", None), comfy.quant_ops.QuantizedTensor)
    ]
    assert len(layers) > 5
    _, (first, second) = sample(specimen, _errors)
    print(f"\nquantized flux gradient {first:.1e}  hessian {second:.1e}")
    assert first < 1e-3
    assert second < 2e-3


def test_layer_with_quantized_product():
    """A layer that quantizes its input too (as on a GPU): the derivative is that of its weight."""
    operations = comfy.ops.mixed_precision_ops({}, torch.float32)
    with torch.inference_mode():
        layer = operations.Linear(32, 16, device="cpu")
        layer.bias = nn.Parameter(torch.randn(16), requires_grad=False)
        quantized = comfy.quant_ops.QuantizedTensor.from_float(
            torch.randn(16, 32), "TensorCoreFP8Layout"
        )
        layer.weight = nn.Parameter(quantized, requires_grad=False)
        layer.layout_type, layer.quant_format = "TensorCoreFP8Layout", "float8_e4m3fn"
        x, g = torch.randn(2, 3, 32), torch.randn(2, 3, 16)
        plain = layer(x)
        with differentiable(None, [layer], second_order=True):
            x_ = normal(x).requires_grad_()
            y = layer(x_)
            (gradient,) = torch.autograd.grad(y.sin(), x_, normal(g), create_graph=True)
            (second,) = torch.autograd.grad(gradient.sum(), x_)
        weight = quantized.dequantize()
        assert relative(y, x @ weight.t() + layer.bias) < 1e-6
        assert relative(gradient, (g * y.cos()) @ weight) < 1e-5
        assert relative(second, (-g * y.sin() * (weight.sum(1))) @ weight) < 1e-4
        assert relative(y, plain) < 0.1  # the host's product rounds its input to fp8
        assert torch.equal(layer(x), plain)


class _AttributeNetwork(nn.Module):
    """A network as another project writes it: torch's own layers, nothing of the host's."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, stride=2, padding="valid"), nn.BatchNorm2d(16), nn.PReLU(16)),
            *(nn.Conv2d(16, 32, 3, padding="same"), nn.GroupNorm(4, 32), nn.SiLU(inplace=True)),
            *(nn.ConvTranspose2d(32, 32, 2, stride=2), nn.InstanceNorm2d(32, affine=True)),
        )
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.norm = nn.LayerNorm(32)
        self.scale = nn.Parameter(torch.randn(32))
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.features(x).flatten(2).transpose(1, 2)
        tokens += self.attention(*[self.norm(tokens)] * 3, need_weights=False)[0]
        return self.head((tokens * self.scale).mean(1))


def test_another_projects_network_against_ordinary_autograd():
    with torch.inference_mode():
        network = architectures.random_weights(_AttributeNetwork()).eval()
        x, direction = torch.rand(1, 3, 16, 16), torch.randn(1, 3, 16, 16)

    def derivatives(network):
        image = normal(x).requires_grad_()
        energy = network(image).pow(2).sum()
        (g,) = torch.autograd.grad(energy, image, create_graph=True)
        return g.detach(), torch.autograd.grad((g * normal(direction)).sum(), image)[0]

    reference = _AttributeNetwork().eval().requires_grad_(False)
    reference.load_state_dict({k: normal(v) for k, v in network.state_dict().items()})
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        # The block writes into what its norm has saved; only for the reference, undo that.
        reference.norm.register_forward_pre_hook(lambda _, args: (args[0].clone(),))
        expected = derivatives(reference)
    with torch.inference_mode(), differentiable(None, [network], second_order=True):
        found = derivatives(network)
        constant = network(normal(x))
    assert not constant.requires_grad  # its parameters would have required a gradient outside
    assert relative(found[0], expected[0]) < 1e-5
    assert relative(found[1], expected[1]) < 1e-4
