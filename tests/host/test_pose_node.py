"""Pose Energy on SDPose as ComfyUI loads it, small, and on ONNX files, all of random weights."""

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import comfy.sample
import comfy.sd
import folder_paths
import pytest
import torch
from skimage import data
from torch import Tensor, nn

from zmagic.nodes.demo_nodes import ZMagicLoadDemo
from zmagic.nodes.onnx_nodes import ZMagicLoadOnnx
from zmagic.nodes.pose_node import ZMagicPose

from .architectures import random_weights
from .checkpoints import autoencoder
from .demo_sampling import sampled
from .derivatives import one_thread, slope_of

COMMON = {"weight": 1.0, "start": 0.0, "end": 1.0}
USUAL = {"points": "body", "min_score": 0.0, "size": 256}

# One level less than SDPose has, and one block for each; the widths are its own.
UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "transformer_depth": [0, 1],
    "transformer_depth_output": [0, 0, 0, 1],
    "transformer_depth_middle": -2,
    "context_dim": 1024,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": True,
    "use_temporal_attention": False,
    "use_temporal_resblock": False,
    "adm_in_channels": 4,
    "legacy": False,
    "heatmap_head": True,
}


@pytest.fixture(scope="module")
def sdpose(tmp_path_factory):
    """The inputs of a checkpoint of SDPose, loaded by ComfyUI from a file."""
    if importlib.util.find_spec("comfy.ldm.modules.sdpose") is None:
        pytest.skip("this ComfyUI has no SDPose")
    from comfy.supported_models import LotusD

    config = LotusD(dict(UNET))
    config.set_inference_dtype(torch.float32, None)
    network = config.get_model({}, "", device="cpu").diffusion_model
    with torch.no_grad():
        random_weights(network)
    weights = {f"model.diffusion_model.{k}": v.half() for k, v in network.state_dict().items()}
    path = tmp_path_factory.mktemp("sdpose") / "sdpose.ckpt"
    torch.save({**weights, **autoencoder()}, path)
    with torch.inference_mode():
        model, _, vae, _ = comfy.sd.load_checkpoint_guess_config(
            str(path), output_vae=True, output_clip=False
        )
    return {"sdpose_model": model, "sdpose_vae": vae}


class HeatMaps(nn.Module):
    """Outputs as HRNet has them: a quarter of the sides, one map for each point of COCO."""

    def __init__(self, points: int = 17):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 7, 2, 3), nn.Tanh(), nn.Conv2d(16, points, 7, 2, 3)
        )

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.layers(pixels)


class SimCC(HeatMaps):
    """Outputs as RTMPose has them: scores of half pixels along x and y."""

    def __init__(self):
        super().__init__()
        self.x, self.y = nn.Linear(64 * 48, 384), nn.Linear(64 * 48, 512)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        maps = super().forward(pixels).flatten(2)
        return self.x(maps), self.y(maps)


def onnx_network(folder: Path, module: nn.Module, outputs: tuple[str, ...]):
    """What Load ONNX Network puts out for a file of 256 x 192 pixels."""
    path = folder / f"{type(module).__name__}.onnx"
    with torch.inference_mode(False), warnings.catch_warnings(action="ignore"):
        with torch.no_grad():
            random_weights(module, seed=4)
        pixels = torch.rand(1, 3, 256, 192)
        torch.onnx.export(module, pixels, str(path), output_names=list(outputs), dynamo=False)
    given = {"normalization": "imagenet", "size": 0, "color_order": "RGB", "mean": "0", "std": "1"}
    known = ([str(folder)], {".onnx"})
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setitem(folder_paths.folder_names_and_paths, "onnx", known)
        return ZMagicLoadOnnx.execute(model_name=path.name, fit="stretch", **given).args[0]


@pytest.fixture(scope="module")
def heat_maps(tmp_path_factory):
    network = onnx_network(tmp_path_factory.mktemp("maps"), HeatMaps(), ("output",))
    return {"pose_network": network}


@pytest.fixture(scope="module")
def simcc(tmp_path_factory):
    names = ("simcc_x", "simcc_y")
    return {"pose_network": onnx_network(tmp_path_factory.mktemp("simcc"), SimCC(), names)}


def photograph() -> Tensor:
    """A photograph as an IMAGE, not square."""
    return torch.from_numpy(data.astronaut()[:300, 50:450])[None].float() / 255.0


def condition(**inputs):
    given = {**USUAL, **inputs}
    if "keypoints" not in inputs:
        given.setdefault("reference", photograph())
    with torch.inference_mode(), one_thread():
        (chain,) = ZMagicPose.execute(**given, **COMMON).args
    return chain[-1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sdpose", "heat_maps", "simcc"])
def test_a_photograph_has_its_own_pose_and_slopes_are_difference_quotients(kind, request):
    network = request.getfixturevalue(kind)
    boxes = [{"x": 0, "y": 0, "width": 180, "height": 300},
             {"x": 190, "y": 20, "width": 200, "height": 260}]  # fmt: skip
    made = condition(**network, person_boxes=boxes, points="all", min_score=0.0)
    assert made.energy.people.points.shape[:2] == (1, 2)
    image = photograph().movedim(-1, 1)
    with torch.no_grad(), one_thread():
        assert made.energy(image).item() < 1e-8
    other, region = torch.rand(1, 3, 75, 100), torch.zeros(1, 1, 75, 100)
    region[..., 16:70, 8:80] = 1.0
    with one_thread():
        value, slope = slope_of(made, other)
        _, inside = slope_of(made, other, region)
        direction, steps = slope / slope.norm(), (0.02, 0.005)
        with torch.no_grad():
            quotients = [
                (made.energy(other + h * direction) - made.energy(other - h * direction)) / (2 * h)
                for h in steps
            ]
    assert value.item() > 1e-4
    error = min(abs(q.item() / slope.norm().item() - 1.0) for q in quotients)
    print(f"{kind}: energy {value.item():.4f}, slope {slope.norm():.4f}, error {error:.4f}")
    assert error < 0.05
    assert inside.abs().max() > 0.0 and not inside[(region == 0.0).expand_as(inside)].any()


@pytest.mark.slow
def test_heat_maps_of_sdpose_are_those_of_comfyui(sdpose):
    """A picture in the shape that SDPose takes, at its own size, has the heat maps that the node
    reads, whose highest values are its scores."""
    from comfy_extras.nodes_sdpose import SDPoseKeypointExtractor

    fitting = torch.nn.functional.interpolate(
        photograph()[:, :, 80:305].movedim(-1, 1), (1024, 768), mode="bicubic"
    ).clamp(0.0, 1.0)
    finder = condition(**sdpose, size=1024, keypoints=frame(body(20.0))).energy.finder
    model, vae = sdpose["sdpose_model"], sdpose["sdpose_vae"]
    # One look of each at so large a picture: the node's network tells its maps by the way.
    with outputs_of(finder.network.module) as ours, torch.inference_mode(False), torch.no_grad():
        _, scores = finder(fitting)
    head = model.model.diffusion_model.heatmap_head
    with outputs_of(head.final_layer) as theirs, torch.inference_mode(), one_thread():
        frames = SDPoseKeypointExtractor.execute(model, vae, fitting.movedim(1, -1), 1).args[0]
    assert ours[0].shape == (1, 133, 256, 192) and finder.size == (1024, 768)
    torch.testing.assert_close(ours[0].float(), theirs[0], rtol=1e-3, atol=1e-3)
    face = torch.tensor(frames[0]["people"][0]["face_keypoints_2d"]).view(-1, 3)[:68, 2]
    torch.testing.assert_close(scores[0, 23:91], face, rtol=1e-3, atol=1e-3)


@contextmanager
def outputs_of(module: nn.Module) -> Iterator[list[Tensor]]:
    """What the module puts out in the meantime."""
    seen: list[Tensor] = []
    hook = module.register_forward_hook(lambda *given: seen.append(given[-1].clone()))
    try:
        yield seen
    finally:
        hook.remove()


def frame(*people: Tensor, width: int = 400, height: int = 300) -> dict:
    bodies = [{"pose_keypoints_2d": person.flatten().tolist(), "face_keypoints_2d": None}
              for person in people]  # fmt: skip
    return {"canvas_width": width, "canvas_height": height, "people": bodies}


def body(left: float) -> Tensor:
    generator = torch.Generator().manual_seed(int(left))
    places = torch.rand(18, 2, generator=generator) * torch.tensor((100.0, 200.0))
    return torch.cat((places + torch.tensor((left, 50.0)), torch.ones(18, 1)), dim=1)


def test_pose_data_of_several_people_are_taken(heat_maps):
    """In pixels or in fractions; a frame of fewer people is filled with nobody."""
    uncertain = body(250.0)
    uncertain[3, 2] = 0.2
    frames = [frame(body(20.0), uncertain), frame(body(20.0))]
    people = condition(**heat_maps, keypoints=frames, min_score=0.3).energy.people
    assert people.counts.sum(-1).tolist() == [[17.0, 16.0], [17.0, 0.0]]
    nose = (body(20.0)[0, :2] + 0.5) / torch.tensor((400.0, 300.0))
    torch.testing.assert_close(people.points[0, 0, 0].float(), nose)
    fractions = body(20.0) / torch.tensor((400.0, 300.0, 1.0))
    again = condition(**heat_maps, keypoints=frame(fractions)).energy.people
    torch.testing.assert_close(again.points[0, 0], people.points[0, 0], rtol=0.0, atol=2e-3)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"keypoints": [frame()]}, "'keypoints' holds no person"),
        ({"keypoints": [{"people": 3}]}, "'keypoints' must be what SDPose Keypoint Extractor"),
        (
            {"keypoints": [frame(body(1.0))], "reference": photograph()},
            "expected either 'ref.*both",
        ),
        ({"keypoints": [frame(body(1.0))], "person_boxes": []}, "disconnect 'person_boxes'"),
        ({"min_score": 90.0}, "no key point of 'body' is in the photograph with at least"),
        ({"points": "hands"}, "points 'hands' needs a network of 133 key points"),
        ({"person_boxes": [{"x": 0}]}, "'person_boxes' must be boxes with x, y, width, height"),
        ({"sdpose_model": object()}, "expected either 'sdpose_model' or 'pose_network'.*both"),
        ({"pose_network": None}, "expected either 'sdpose_model' or 'pose_network'.*neither"),
        ({"pose_network": None, "sdpose_model": object()}, "'sdpose_model' and 'sdpose_vae' bel"),
        (
            {"pose_network": None, "sdpose_model": object(), "sdpose_vae": object()},
            "'sdpose_model' must be SDPose",
        ),
    ],
)
def test_errors_say_what_to_do(heat_maps, inputs, message):
    with pytest.raises(ValueError, match=f"(?s)^Pose Energy: {message}"):
        condition(**{**heat_maps, **inputs})


def test_networks_of_another_kind_are_refused(tmp_path):
    class Vector(HeatMaps):
        def forward(self, pixels: Tensor) -> Tensor:
            return super().forward(pixels).mean((2, 3))

    network = onnx_network(tmp_path, Vector(), ("output",))
    with pytest.raises(ValueError, match=r"(?s)'pose_network' must put out .* puts out \[1, 17\]"):
        condition(pose_network=network)


@pytest.mark.slow
def test_a_pose_is_followed_in_the_demo_model(heat_maps):
    """A network of random weights has slopes, too: what it calls key points is followed."""
    with torch.inference_mode():
        model, _, vae, *_ = demo = ZMagicLoadDemo.execute().args
    guide = condition(**heat_maps, reference=demo[4], min_score=-1e9)

    def final(strength: float) -> float:
        ((energy,),) = sampled(model, vae, guide, strength, steps=6)[1].final.values()
        return energy

    plain, guided = final(0.0), final(0.3)
    print(f"pose {plain:.4f} -> {guided:.4f}")
    assert guided < plain
