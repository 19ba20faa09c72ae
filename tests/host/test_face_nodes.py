"""Face networks from packs and files, and the energies that run them, inside the real host."""

import shutil

import comfy.model_management
import comfy.samplers
import folder_paths
import numpy as np
import pytest
import safetensors.torch
import skimage.data
import torch
from torch.nn import functional as F

from zmagic.guidance.faces.crops import Faces
from zmagic.guidance.settings import preset
from zmagic.host.face_networks import (
    find_landmark_network,
    find_recognizer,
    landmark_choices,
    recognizer_choices,
)
from zmagic.host.hooks import HostSettings, attach
from zmagic.nodes.demo_nodes import ZMagicLoadDemo
from zmagic.nodes.face_energy_nodes import ZMagicFaceIdentity, ZMagicLandmarks
from zmagic.nodes.face_loader_nodes import ZMagicLoadFaceRecognizer, ZMagicLoadLandmarkNetwork

from .demo_sampling import empty_latent, said
from .derivatives import slope_of
from .face_locations import face_location
from .published_faces import random_iresnet, write_landmark_network, write_recognizer_pack

COMMON = {"weight": 1.0, "start": 0.0, "end": 1.0}
COLORS = {"mean": -1.0, "std": 0.0, "color_order": "RGB"}
LANDMARK_INPUTS = {**COLORS, "crop": "automatic", "margin": 0.0, "output_range": "automatic"}

# How the network that stands in for insightface's was trained.
FR_FEATURE = {"mean": 127.0, "std": 128.0, "color_order": "RGB"}


@pytest.fixture(scope="module")
def models(tmp_path_factory, face_networks):
    """A models folder with a pack as insightface's library unpacks it, and single files."""
    folder = tmp_path_factory.mktemp("models")
    write_recognizer_pack(folder)
    for name in ("fr_feature", "fr_landmark", "fr_detect"):
        shutil.copy(face_networks / f"{name}.onnx", folder / "insightface")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder_paths, "models_dir", str(folder))
        yield folder
    comfy.model_management.unload_all_models()


@pytest.fixture(scope="module")
def iresnet():
    """The network that was exported to the pack."""
    return random_iresnet()


@pytest.fixture(scope="module")
def pack(models):
    """The networks of the pack, kept so that they are converted once."""
    return recognizer("buffalo_l"), landmark_network("buffalo_l")


@pytest.fixture
def empty(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    return tmp_path / "insightface"


def run(node, **inputs):
    """The node's only output in a prompt, which the host runs in inference mode."""
    with torch.inference_mode():
        output = node.execute(**inputs).args[0]
    return output


def recognizer(name: str = "fr_feature.onnx", **inputs):
    inputs = {**(FR_FEATURE if name == "fr_feature.onnx" else COLORS), **inputs}
    return run(ZMagicLoadFaceRecognizer, model_name=name, **inputs)


def landmark_network(name: str = "fr_landmark.onnx", **inputs):
    return run(ZMagicLoadLandmarkNetwork, model_name=name, **{**LANDMARK_INPUTS, **inputs})


def identity(network, reference, **inputs):
    (condition,) = run(
        ZMagicFaceIdentity, recognizer=network, reference=reference, **{**COMMON, **inputs}
    )
    return condition


def landmarks(network, **inputs):
    inputs = {"landmarks": "", "points": "all", **COMMON, **inputs}
    (condition,) = run(ZMagicLandmarks, landmark_network=network, **inputs)
    return condition


def detector(network=None):
    """Return what Locate Face puts out with its own values."""
    return face_location(detector="fr_detect.onnx", landmark_network=network)


def photograph() -> torch.Tensor:
    """An IMAGE of an astronaut: one face, 90 pixels wide."""
    return torch.from_numpy(skimage.data.astronaut()[:300, 80:380].copy())[None].float() / 255.0


def portrait() -> torch.Tensor:
    """The same face, filling the picture."""
    return photograph()[:, 50:190, 85:195]


# ---------------------------------------------------------------- files


def test_packs_and_single_files_are_offered(models):
    singles = ["fr_detect.onnx", "fr_feature.onnx", "fr_landmark.onnx"]
    assert recognizer_choices() == ["buffalo_l", *singles]
    assert landmark_choices() == ["buffalo_l", *singles]
    assert find_recognizer("buffalo_l").name == "w600k_r50.onnx"
    assert find_landmark_network("buffalo_l").name == "2d106det.onnx"


def test_the_usual_pack_is_offered_where_nothing_is(empty):
    assert recognizer_choices() == landmark_choices() == ["buffalo_l (not installed)"]


@pytest.mark.parametrize(
    "place",
    [
        "models/antelopev2/glintr100.onnx",
        "models/antelopev2/antelopev2/glintr100.onnx",  # what its archive unpacks to
        "antelopev2/glintr100.onnx",
        "models/antelopev2/some_other_name.onnx",
    ],
)
def test_a_pack_is_found_wherever_it_was_unpacked(empty, face_networks, place):
    path = empty / place
    path.parent.mkdir(parents=True)
    shutil.copy(face_networks / "fr_feature.onnx", path)
    shutil.copy(face_networks / "fr_detect.onnx", path.parent / "a_detector.onnx")
    write_landmark_network(path.parent / "z.onnx")
    assert recognizer_choices() == ["antelopev2", "buffalo_l (not installed)"]
    assert find_recognizer("antelopev2") == path
    assert find_landmark_network("antelopev2") == path.parent / "z.onnx"


def test_weights_of_an_iresnet_are_offered_beside_packs(empty):
    for name in ("arcface.safetensors", "models/r50/arcface.safetensors"):
        (empty / name).parent.mkdir(parents=True, exist_ok=True)
        (empty / name).touch()
    assert recognizer_choices() == [
        "arcface.safetensors",
        "models/r50/arcface.safetensors",
        "buffalo_l (not installed)",
    ]
    assert landmark_choices() == ["buffalo_l (not installed)"]


@pytest.mark.parametrize(
    ("node", "title", "inputs"),
    [
        (ZMagicLoadFaceRecognizer, "Load Face Recognizer", COLORS),
        (ZMagicLoadLandmarkNetwork, "Load Landmark Network", LANDMARK_INPUTS),
    ],
)
def test_what_is_missing_is_explained(empty, face_networks, node, title, inputs):
    with pytest.raises(ValueError, match=f"^{title}: .* 'buffalo_l' not found") as missing:
        node.execute(model_name="buffalo_l", **inputs)
    message = str(missing.value)
    for part in (str(empty), "github.com/deepinsight/insightface", "275 MB", "non-commercial"):
        assert part in message
    assert message.splitlines()[0].endswith(str(empty / "models" / "buffalo_l"))
    with pytest.raises(ValueError) as same:
        node.execute(model_name="buffalo_l (not installed)", **inputs)
    assert str(same.value) == message

    pack = empty / "models" / "mine"
    pack.mkdir(parents=True)
    shutil.copy(face_networks / "fr_age.onnx", pack)
    (pack / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(ValueError, match=f"^{title}: the pack 'mine' holds no ") as none:
        node.execute(model_name="mine", **inputs)
    assert "fr_age.onnx [1, 3, 64, 64] to" in str(none.value)
    assert "broken.onnx is not a readable" in str(none.value)


@pytest.mark.parametrize(
    ("node", "file", "message"),
    [
        (ZMagicLoadFaceRecognizer, "fr_landmark.onnx", "is no face recognizer: expected .* 136"),
        (ZMagicLoadFaceRecognizer, "fr_detect.onnx", "is no face recognizer: .* to 2 tensors"),
        (ZMagicLoadLandmarkNetwork, "fr_feature.onnx", "is no landmark network: .* 512"),
        (ZMagicLoadLandmarkNetwork, "fr_detect.onnx", "is no landmark network"),
    ],
)
def test_another_network_is_refused(models, node, file, message):
    inputs = COLORS if node is ZMagicLoadFaceRecognizer else LANDMARK_INPUTS
    with pytest.raises(ValueError, match=f"^{node.GET_SCHEMA().display_name}: {file} {message}"):
        node.execute(model_name=file, **inputs)


def test_other_weights_are_refused(empty):
    empty.mkdir()
    safetensors.torch.save_file({"visual.proj": torch.ones(2)}, empty / "clip.safetensors")
    (empty / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="^Load Face Recognizer: clip.* of an IResNet"):
        recognizer("clip.safetensors")
    with pytest.raises(ValueError, match="^Load Face Recognizer: broken.* not a readable"):
        recognizer("broken.safetensors")


def test_fingerprints_follow_the_file(empty, face_networks):
    def stamps():
        recognizers = ZMagicLoadFaceRecognizer.fingerprint_inputs(model_name="mine", **COLORS)
        return recognizers, ZMagicLoadLandmarkNetwork.fingerprint_inputs(
            model_name="mine", **LANDMARK_INPUTS
        )

    before = stamps()
    assert before == stamps() == (("mine",), ("mine",))
    pack = empty / "models" / "mine"
    pack.mkdir(parents=True)
    shutil.copy(face_networks / "fr_feature.onnx", pack)
    write_landmark_network(pack / "2d106det.onnx")
    after = stamps()
    assert after == stamps() and after[0] != before[0] and after[1] != before[1]
    for node in (ZMagicLoadFaceRecognizer, ZMagicLoadLandmarkNetwork):
        assert node.validate_inputs(model_name="not there") is True


# ---------------------------------------------------------------- what the networks compute


def test_pack_onnx_and_safetensors_are_one_network(models, pack, iresnet):
    safetensors.torch.save_file(iresnet.state_dict(), models / "insightface" / "r50.safetensors")
    crops = F.interpolate(photograph().movedim(-1, 1), size=(112, 112))
    crops = torch.cat((crops, crops.flip(-1)))
    weights = recognizer("r50.safetensors")
    assert pack[0].size == weights.size == 112
    expected = F.normalize(iresnet(crops * 2.0 - 1.0))
    for network in (pack[0], weights):
        torch.testing.assert_close(F.normalize(network(crops)), expected, atol=1e-4, rtol=0.0)
        assert network(crops).shape == (2, 512)


def test_insightface_computes_the_same_with_the_pack(models, pack):
    model_zoo = pytest.importorskip("insightface.model_zoo")
    picture = photograph()
    bgr = (picture[0].flip(-1) * 255.0).byte().numpy()
    height, width = bgr.shape[:2]
    box = np.array([100.0, 60.0, 172.0, 188.0])  # 1.5 x 128 pixels is the crop: no resampling
    frame = torch.tensor((width, height), dtype=torch.float64).repeat(2)
    faces = Faces.from_boxes((torch.from_numpy(box)[None] + 0.5) / frame)
    image = picture.movedim(-1, 1)

    library = model_zoo.get_model(str(models / "insightface/models/buffalo_l/2d106det.onnx"))
    face = pytest.importorskip("insightface.app.common").Face(bbox=box)
    points = torch.from_numpy(library.get(bgr, face))  # whole numbers are pixel centers
    ours = landmark_network("buffalo_l").landmarks(image, faces)[0] * frame[:2] - 0.5
    assert library.taskname == "landmark_2d_106" and ours.shape == (106, 2)
    torch.testing.assert_close(ours.float(), points, atol=0.01, rtol=0.0)  # pixels

    library = model_zoo.get_model(str(models / "insightface/models/buffalo_l/w600k_r50.onnx"))
    crop = bgr[60:172, 80:192]
    theirs = torch.from_numpy(library.get_feat(crop))
    ours = recognizer("buffalo_l")(
        torch.from_numpy(crop.copy()).flip(-1).movedim(-1, 0)[None] / 255.0
    )
    torch.testing.assert_close(F.normalize(ours), F.normalize(theirs), atol=1e-4, rtol=0.0)


def test_preparation_comes_from_the_file_or_the_inputs(models, pack):
    def scale(network):
        return network.preprocessing.mean[0] * 255.0, network.preprocessing.std[0] * 255.0

    assert scale(recognizer("buffalo_l")) == pytest.approx((127.5, 127.5))
    assert scale(recognizer()) == pytest.approx((127.0, 128.0))
    assert scale(recognizer("buffalo_l", mean=0.0, std=1.0)) == pytest.approx((0.0, 1.0))
    assert recognizer("buffalo_l").preprocessing.channels == "rgb"
    assert recognizer("buffalo_l", color_order="BGR").preprocessing.channels == "bgr"

    insightface, gray = landmark_network("buffalo_l"), landmark_network()
    assert scale(insightface) == pytest.approx((0.0, 1.0))  # its file normalizes
    assert scale(gray) == pytest.approx((0.0, 256.0))
    assert insightface.preprocessing.size == (192, 192) and insightface.points == 106
    assert (insightface.margin, insightface.square, insightface.signed) == (1.5, True, True)
    assert gray.preprocessing.channels == "gray" and gray.points == 68
    assert (gray.margin, gray.square, gray.signed) == (1.0, False, False)
    own = landmark_network(crop="square", margin=1.2, output_range="-1 to 1", mean=100.0, std=50.0)
    assert (own.margin, own.square, own.signed) == (1.2, True, True)
    assert scale(own) == pytest.approx((100.0, 50.0))


def test_two_loaders_share_one_network(models):
    first, second = recognizer(), recognizer(color_order="BGR")
    assert first.network is second.network


# ---------------------------------------------------------------- nodes


def test_identity_of_several_photographs(models):
    network = recognizer()
    picture = portrait()
    several = torch.cat((picture, picture.flip(2), picture * 0.6))
    condition = identity(network, several)
    assert condition.name == "Face Identity" and condition.networks == (network.network,)
    values, slope = slope_of(condition, several.movedim(-1, 1))
    assert values.max() < 0.1 and slope.isfinite().all() and slope.abs().max() > 0.0
    alone = identity(network, picture).energy
    assert alone(several.movedim(-1, 1))[0] < 1e-5 < values[0]  # an average is none of them


def test_references_are_encoded_once(models):
    network = recognizer(std=64.0)
    kept = network.network._references
    kept.clear()
    reference = portrait()
    first = identity(network, reference)
    (embedding,) = kept.values()
    second = identity(network, reference.clone(), weight=0.5)
    assert len(kept) == 1 and next(iter(kept.values())) is embedding
    assert torch.equal(first.energy.reference, second.energy.reference)
    identity(network, reference.flip(2))
    identity(recognizer(std=32.0), reference)  # the same file, prepared in another way
    assert len(kept) == 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_references_in_any_precision(models, dtype):
    picture = portrait()
    expected = identity(recognizer(), picture).energy.reference
    found = identity(recognizer(), picture.to(dtype)).energy.reference
    assert found.dtype == torch.float32 and found @ expected > 0.995
    target = landmarks(landmark_network(), target_image=picture.to(dtype)).energy.target
    expected = landmarks(landmark_network(), target_image=picture).energy.target
    assert target.dtype == torch.float32
    torch.testing.assert_close(target, expected, atol=0.01, rtol=0.0)


def test_the_face_is_located_in_the_reference_and_in_the_picture(models):
    network, points = recognizer(), landmark_network()
    location = detector(points)
    condition = identity(network, photograph(), face_location=location)
    assert condition.networks == (network.network, points.network)
    elsewhere = F.pad(photograph().movedim(-1, 1), (150, 10, 60, 20))
    assert condition.energy(elsewhere).item() < 0.1
    assert identity(network, photograph()).energy(elsewhere).item() > 0.3

    shape = landmarks(points, target_image=photograph(), face_location=location, points="mouth")
    assert shape.networks == (points.network,) and shape.name == "Landmark"
    assert shape.energy(elsewhere).item() < 1e-3


def test_references_without_a_face_are_refused(models):
    pictures = torch.zeros(2, 300, 300, 3)
    where = "no face was found in any of the 2 pictures at"
    with pytest.raises(ValueError, match=f"^Face Identity Energy: {where} 'reference'"):
        identity(recognizer(), pictures, face_location=detector())
    with pytest.raises(ValueError, match=f"^Landmark Energy: {where} 'target_image'"):
        landmarks(landmark_network(), target_image=pictures, face_location=detector())


def test_landmarks_of_a_photograph_or_in_numbers(models):
    network = landmark_network()
    first = landmarks(network, target_image=portrait())
    numbers = ", ".join(f"{x:.6f}" for x in first.energy.target.flatten().tolist())
    second = landmarks(network, landmarks=numbers)
    image = torch.rand(2, 3, 90, 80)
    torch.testing.assert_close(first.energy(image), second.energy(image), rtol=1e-3, atol=1e-6)
    assert first.energy(portrait().movedim(-1, 1)).item() < 1e-8


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "expected a picture at 'target_image' or numbers in 'landmarks', got neither"),
        ({"landmarks": "0 1", "target_image": torch.rand(1, 9, 9, 3)}, ".* got both"),
        ({"landmarks": "0 1"}, "'landmarks' must be 136 finite numbers"),
        ({"landmarks": "left eye"}, "'landmarks' must be numbers, .* got 'left'"),
        ({"target_image": torch.rand(9, 9, 3)}, r"'target_image' must be an RGB image"),
        ({"target_image": torch.rand(1, 90, 90, 3), "start": 0.5, "end": 0.1}, "expected 'start'"),
    ],
)
def test_landmark_node_explains(models, inputs, message):
    with pytest.raises(ValueError, match=f"^Landmark Energy: {message}"):
        landmarks(landmark_network(), **inputs)


def test_parts_need_a_known_order_of_points(models):
    path = models / "insightface" / "five.onnx"
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 10))
    torch.onnx.export(module, torch.zeros(1, 3, 16, 16), str(path), dynamo=False)
    network = landmark_network("five.onnx")
    assert network.points == 5
    with pytest.raises(ValueError, match="^Landmark Energy: points 'mouth' needs a network of 68"):
        landmarks(network, target_image=portrait(), points="mouth")
    assert landmarks(network, target_image=portrait()).energy(torch.rand(1, 3, 20, 20)).shape == (
        1,
    )
    path.unlink()


# ---------------------------------------------------------------- a guided run


@pytest.fixture(scope="module")
def demo():
    with torch.inference_mode():
        return ZMagicLoadDemo.execute().args


# One picture may lose its face by the rounding of a processor; the mean does not.
PICTURES = 4


def sample(model, conditioning, seen=None, steps: int = 8):
    """Latents from the host's sampler; ``seen`` gets the patchers in memory at every step."""

    def callback(step, denoised, x, total):
        if seen is not None:
            seen.append([loaded.model for loaded in comfy.model_management.current_loaded_models])

    with torch.inference_mode():
        sampling = model.get_model_object("model_sampling")
        empty = empty_latent(PICTURES)["samples"]
        return comfy.samplers.sample(
            model,
            torch.randn(empty.shape, generator=torch.Generator().manual_seed(2)),
            conditioning,
            conditioning,
            1.0,
            model.load_device,
            comfy.samplers.sampler_object("euler"),
            comfy.samplers.calculate_sigmas(sampling, "karras", steps),
            latent_image=empty,
            callback=callback,
            disable_pbar=True,
            seed=2,
        )


@pytest.mark.slow
def test_a_run_moves_towards_the_person_and_loads_nothing_on_the_way(models, demo):
    model, _, vae, _, woman, *_ = demo
    comfy.model_management.unload_all_models()
    network = recognizer()
    condition = identity(network, woman, face_location=detector(landmark_network()))

    def final(strength: float, seen: list | None = None) -> float:
        traces = []
        settings = HostSettings(preset("fast", guide_every=1, strength=strength), "vae")
        guided = attach(model, (condition,), settings, vae, on_finish=traces.append)
        sample(guided, said(), seen)
        # The last step's: no detector trained on photographs finds the finished face.
        return sum(traces[0].steps[-1].energies[0]) / PICTURES

    seen: list = []
    plain, guided = final(0.0), final(0.15, seen)
    assert guided < plain - 0.15  # measured: 0.79 and 0.50
    assert all(seen[0] == patchers for patchers in seen[1:])
    in_memory = [patcher.model for patcher in seen[0]]
    for needed in condition.networks:
        assert any(needed.module is module for module in in_memory), needed.name
