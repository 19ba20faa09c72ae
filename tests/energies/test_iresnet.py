"""The ArcFace network from its weights: depth, forms, names, derivatives, messages."""

import pytest
import torch
from torch import Tensor, nn

from zmagic.guidance.networks.iresnet import LAYERS, IResNet, iresnet_from_weights

# Parameters in millions as the ArcFace authors publish them for embeddings of 512 numbers.
PUBLISHED_MILLIONS = {18: 24.03, 34: 34.14, 50: 43.59, 100: 65.16}

SMALL = (1, 2, 1, 1)


def trained(units=SMALL, features: int = 32, side: int = 32) -> IResNet:
    """A small network as training leaves it: every batch norm with statistics of its own."""
    network = IResNet(units, features, side)
    network.train()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.2, 1.2)
        for _ in range(3):
            network(torch.randn(4, 3, side, side))
    return network.eval()


def folded(network: IResNet) -> dict[str, Tensor]:
    """Its weights with every batch norm behind a convolution put into it, as exports do it."""
    modules = dict(network.named_modules())
    pairs = {}
    for name, module in modules.items():
        if not isinstance(module, nn.Conv2d):
            continue
        if name.endswith("downsample.0"):
            pairs[name] = (name.removesuffix("0") + "1", name.removesuffix(".0"))
        else:
            norm = name.replace("conv2", "bn3").replace("conv1", "bn2")
            pairs[name] = ("bn1" if name == "conv1" else norm, name)
    absorbed = {norm for norm, _ in pairs.values()}
    weights = {
        key: value
        for key, value in network.state_dict().items()
        if key.rpartition(".")[0] not in absorbed | set(pairs)
    }
    for name, (norm, target) in pairs.items():
        norm = modules[norm]
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        weights[f"{target}.weight"] = modules[name].weight * scale[:, None, None, None]
        weights[f"{target}.bias"] = norm.bias - norm.running_mean * scale
    return weights


@pytest.mark.parametrize("depth", LAYERS)
def test_published_sizes_and_depth_from_the_weights(depth):
    with torch.device("meta"):
        network = IResNet(LAYERS[depth])
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    assert round(millions, 2) == PUBLISHED_MILLIONS[depth]
    again = iresnet_from_weights(network.state_dict(), "file")
    assert [len(getattr(again, f"layer{i}")) for i in (1, 2, 3, 4)] == list(LAYERS[depth])
    assert again.side == 112 and again.features.num_features == 512


def test_usual_names():
    with torch.device("meta"):
        names = set(IResNet(LAYERS[50]).state_dict())
    for name in (
        "conv1.weight",
        "bn1.running_mean",
        "prelu.weight",
        "layer1.0.bn1.weight",
        "layer1.0.conv1.weight",
        "layer1.0.bn2.bias",
        "layer1.0.prelu.weight",
        "layer1.0.conv2.weight",
        "layer1.0.bn3.running_var",
        "layer1.0.downsample.0.weight",
        "layer1.0.downsample.1.weight",
        "layer3.13.bn2.weight",
        "bn2.weight",
        "fc.weight",
        "fc.bias",
        "features.running_mean",
    ):
        assert name in names, name
    assert not any(name.endswith("conv1.bias") for name in names)


@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_weights_come_back(prefix):
    network = trained()
    crops = torch.randn(2, 3, 32, 32)
    weights = {f"{prefix}{key}": value for key, value in network.state_dict().items()}
    weights |= {"head.weight": torch.zeros(3)} if prefix else {}
    again = iresnet_from_weights(weights, "file")
    assert torch.equal(again(crops), network(crops))
    assert not again.training and not any(p.requires_grad for p in again.parameters())


@pytest.mark.parametrize("fold", [False, True])
def test_narrow_networks_come_back(fold):
    network = IResNet(SMALL, 32, 32, widths=(8, 8, 24, 16)).eval()
    again = iresnet_from_weights(folded(network) if fold else network.state_dict(), "file")
    crops = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(again(crops), network(crops), rtol=1e-4, atol=1e-5)


def test_form_with_folded_norms_computes_the_same():
    network = trained().double()
    weights = folded(network)
    assert "layer2.0.downsample.weight" in weights and "layer1.0.bn2.weight" not in weights
    again = iresnet_from_weights(weights, "file").double()
    crops = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    # The weights pass through float32.
    torch.testing.assert_close(again(crops), network(crops), rtol=1e-4, atol=1e-5)


def test_half_precision_files_compute_in_single_precision():
    network = trained()
    again = iresnet_from_weights(
        {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()},
        "file",
    )
    crops = torch.randn(2, 3, 32, 32)
    assert again(crops).dtype == torch.float32
    torch.testing.assert_close(again(crops), network(crops), rtol=0.05, atol=0.02)


def test_derivatives():
    network = trained((1, 1, 1, 1), 8, 16).double()
    crops = torch.randn(2, 3, 16, 16, dtype=torch.float64, requires_grad=True)

    def energy(x):
        return nn.functional.normalize(network(x)).square().cumsum(1).sum(1)

    assert torch.autograd.gradcheck(energy, crops, fast_mode=True)
    assert torch.autograd.gradgradcheck(energy, crops, fast_mode=True)


def test_made_in_inference_mode_it_still_has_gradients():
    weights = trained().state_dict()
    with torch.inference_mode():
        network = iresnet_from_weights({k: v.clone() for k, v in weights.items()}, "file")
    crops = torch.randn(1, 3, 32, 32, requires_grad=True)
    network(crops).sum().backward()
    assert crops.grad.isfinite().all() and crops.grad.abs().max() > 0.0


def test_the_weights_are_its_own():
    weights = trained().state_dict()
    network = iresnet_from_weights(weights, "file")
    crops = torch.randn(1, 3, 32, 32)
    before = network(crops)
    weights["fc.weight"].zero_()
    assert torch.equal(network(crops), before)


def without(*names: str):
    return lambda weights: {k: v for k, v in weights.items() if k not in names}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {"visual.proj": w["fc.weight"]}, "does not hold .* got visual.proj"),
        (lambda w: {}, "does not hold .* got none"),
        (without("fc.weight"), "does not hold the weights of an IResNet"),
        (without("layer2.1.bn2.bias"), "missing layer2.1.bn2.bias, not expected none"),
        (
            lambda w: {**w, "layer1.0.se.fc1.weight": torch.ones(1)},
            "missing none, not expected layer1.0.se.fc1.weight",
        ),
        (
            lambda w: {**w, "prelu.weight": torch.ones(1)},
            r"expected prelu.weight of shape \[64\], got \[1\]",
        ),
    ],
)
def test_messages_name_the_file_and_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=f"^arcface.safetensors .*{message}"):
        iresnet_from_weights(change(trained().state_dict()), "arcface.safetensors")
