"""Depth and Normals Energy on ComfyUI's own Depth Anything 3 and MoGe, small, of random weights."""

import importlib.util

import comfy.cli_args
import pytest
import torch
from skimage import data
from torch import Tensor

from zmagic.nodes.demo_nodes import ZMagicLoadDemo

from .architectures import random_weights
from .demo_sampling import sampled
from .derivatives import one_thread, slope_of

if importlib.util.find_spec("comfy.ldm.moge") is None:
    pytest.skip("this ComfyUI has no networks of geometry", allow_module_level=True)

from zmagic.nodes.geometry_energy_nodes import ZMagicDepth, ZMagicNormals

COMMON = {"weight": 1.0, "start": 0.0, "end": 1.0}
SIDE = 140
BACKBONE = {"hidden_size": 64, "num_attention_heads": 1, "num_hidden_layers": 4}


@pytest.fixture(scope="module")
def da3(tmp_path_factory):
    """Depth Anything 3 Small's backbone with a small head, loaded by ComfyUI from a file."""
    import comfy.sd
    from comfy.ldm.depth_anything_3.model import DepthAnything3Net
    from safetensors.torch import save_file

    network = DepthAnything3Net(
        "vits",
        out_layers=(2, 5, 8, 11),
        head_dim_in=384,
        head_features=32,
        head_out_channels=(16, 16, 32, 32),
        dtype=torch.float32,
        operations=comfy.ops.manual_cast,
    )
    random_weights(network.requires_grad_(False), seed=0)
    path = tmp_path_factory.mktemp("da3") / "da3_small.safetensors"
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
    with torch.inference_mode():
        return comfy.sd.load_diffusion_model(str(path))


@pytest.fixture(scope="module")
def moge():
    """A MoGe 2 with normals, made by ComfyUI of its weights as its loader does."""
    from comfy.ldm.moge.model import MoGeModel, MoGeModelV2

    stack = {"dim_in": [18, 2, 2, 2, 2], "dim_res_blocks": [16, 8, 8, 8, 8],
             "num_res_blocks": [1] * 5, "resamplers": ["conv_transpose"] * 4}  # fmt: skip
    head = {**stack, "dim_in": [16, 8, 8, 8, 8]}
    network = MoGeModelV2(
        encoder={
            "backbone": {**BACKBONE, "layer_norm_eps": 1e-6, "use_swiglu_ffn": False},
            "intermediate_layers": [0, 1, 2, 3],
            "dim_out": 16,
        },
        neck={**stack, "dim_out": [None] * 5},
        points_head={**head, "dim_out": [None] * 4 + [3]},
        mask_head={**head, "dim_out": [None] * 4 + [1]},
        normal_head={**head, "dim_out": [None] * 4 + [3]},
        scale_head={"dims": [64, 16, 1]},
    )
    random_weights(network.requires_grad_(False), seed=1)
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        # As with --fp32-text-enc: in half precision ComfyUI's own node cannot run on a CPU.
        patch.setattr(comfy.cli_args.args, "fp32_text_enc", True)
        return MoGeModel(dict(network.state_dict()))


def photograph() -> Tensor:
    """A photograph as an IMAGE, not square."""
    return torch.from_numpy(data.astronaut()[:300, 50:450])[None].float() / 255.0


def condition(node, **inputs):
    given = {"reference": photograph(), "reference_is": "photograph", "size": SIDE, **inputs}
    with torch.inference_mode(), one_thread():
        (chain,) = node.execute(**given, **COMMON).args
    return chain[-1]


@pytest.fixture(params=["depth by da3", "depth by moge", "normals by moge"])
def made(request, da3, moge):
    """A function that makes the condition, with further inputs."""
    node, _, network = request.param.partition(" by ")
    model = {"da3_model": da3} if network == "da3" else {"moge_model": moge}
    kind = ZMagicDepth if node == "depth" else ZMagicNormals
    return lambda **inputs: condition(kind, **model, **inputs)


def test_a_photograph_has_its_own_geometry_and_slopes_are_difference_quotients(made):
    energy = made().energy
    image = photograph().movedim(-1, 1)
    with torch.no_grad(), one_thread():
        assert abs(energy(image).item()) < 1e-4
    other, region = torch.rand(1, 3, 96, 128), torch.zeros(1, 1, 96, 128)
    region[..., 16:80, 8:100] = 1.0
    with one_thread():
        value, slope = slope_of(made(), other)
        _, inside = slope_of(made(), other, region)
        direction, step = slope / slope.norm(), 0.02
        with torch.no_grad():
            ahead, behind = (energy(other + sign * step * direction) for sign in (1, -1))
    assert value.item() > 1e-3
    assert slope.norm().item() == pytest.approx(((ahead - behind) / (2 * step)).item(), rel=0.05)
    assert inside.abs().max() > 0.0 and not inside[(region == 0.0).expand_as(inside)].any()


def test_depth_is_that_of_comfyui(da3):
    """The picture need not be resized, for which the host's own node has another filter."""
    from comfy_extras.nodes_depth_anything_3 import DA3Inference

    fitting = photograph()[:, :98, :SIDE]
    with torch.inference_mode(), one_thread():
        mode = {"mode": "mono"}
        geometry = DA3Inference.execute(da3, fitting, SIDE, "upper_bound_resize", mode).args[0]
    near = 1.0 / geometry["depth"][:, None]
    energy = condition(ZMagicDepth, da3_model=da3, reference=fitting).energy
    target = energy.reference.at(near)[:, :1]
    torch.testing.assert_close(target, near, rtol=1e-3, atol=1e-5)


def test_maps_are_read_as_comfyui_renders_them(moge):
    """A map of the photograph's own normals asks for these, in its own convention alone."""
    from comfy_extras.nodes_moge import MoGeRender

    image = photograph().movedim(-1, 1)
    own = condition(ZMagicNormals, moge_model=moge).energy
    with torch.no_grad(), one_thread():
        normals = torch.nn.functional.normalize(own.estimator(image), dim=1)
    forms = {"normal_opengl": "normal map (OpenGL)", "normal_directx": "normal map (DirectX)"}
    for kind in forms:
        with torch.inference_mode():
            geometry = {"normal": normals.movedim(1, -1).clone(), "image": photograph()}
            rendered = MoGeRender.execute(geometry, kind).args[0]
        for said, form in forms.items():
            given = {"reference": rendered, "reference_is": form}
            energy = condition(ZMagicNormals, moge_model=moge, **given).energy
            with torch.no_grad(), one_thread():
                value = energy(image).item()
            assert value < 1e-3 if said == kind else value > 0.01


def test_a_depth_map_is_turned_round(da3):
    ramp = torch.linspace(0.2, 0.8, 64)[None, None, :, None].expand(1, 64, 64, 3)
    white, black = (
        condition(
            ZMagicDepth, da3_model=da3, reference=ramp, reference_is=f"depth map, near is {c}"
        )
        for c in ("white", "black")
    )
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad(), one_thread():
        total = white.energy(image) + black.energy(image)
    torch.testing.assert_close(total, torch.tensor([2.0]), rtol=0.0, atol=1e-3)


@pytest.mark.parametrize(
    ("node", "inputs", "message"),
    [
        (ZMagicDepth, {}, "Depth Energy: expected either 'da3_model' or 'moge_model' .* neither"),
        (ZMagicDepth, {"da3_model": object()}, "Depth Energy: 'da3_model' must be what Load Depth"),
        (ZMagicNormals, {"moge_model": object()}, "Normals Energy: 'moge_model' must be what Load"),
    ],
)
def test_errors_say_what_to_connect(node, inputs, message):
    with pytest.raises(ValueError, match=f"(?s)^{message}"):
        condition(node, **inputs)


def test_a_flat_map_is_refused(da3):
    flat = {
        "reference": torch.full((1, 32, 32, 3), 0.5),
        "reference_is": "depth map, near is white",
    }
    with pytest.raises(ValueError, match="^Depth Energy: the target is equally near everywhere"):
        condition(ZMagicDepth, da3_model=da3, **flat)


@pytest.mark.slow
def test_depth_is_followed_in_the_demo_model(da3):
    """A network of random weights has slopes, too: what it calls depth is followed."""
    with torch.inference_mode():
        model, _, vae, *_ = demo = ZMagicLoadDemo.execute().args
    guide = condition(ZMagicDepth, da3_model=da3, reference=demo[4])

    def final(strength: float) -> float:
        ((energy,),) = sampled(model, vae, guide, strength, steps=4)[1].final.values()
        return energy

    plain, guided = final(0.0), final(0.3)
    print(f"depth {plain:.3f} -> {guided:.3f}")
    assert guided < plain
