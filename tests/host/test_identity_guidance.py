"""Identity guidance of the demo model, measured by a recognizer that did not guide."""

import pytest
import torch

from zmagic.guidance.conditions import Condition
from zmagic.guidance.energies import FaceIdentity
from zmagic.guidance.energies.face_identity import mean_embedding
from zmagic.guidance.settings import preset
from zmagic.host.demo_model import (
    MAN_FILE,
    face_in,
    load_autoencoder,
    load_photograph,
    load_unet,
)
from zmagic.host.demo_networks import demo_landmarks, demo_locator
from zmagic.host.face_networks import RecognizerOptions, load_recognizer
from zmagic.host.hooks import HostSettings, attach
from zmagic.lab.evaluators.dlib_faces import DlibFaces

from .demo_sampling import empty_latent, said

pytestmark = pytest.mark.lab

BATCH, STEPS = 6, 5


@pytest.fixture(scope="module")
def world():
    with torch.inference_mode():
        return load_unet(), load_autoencoder()


@pytest.mark.slow
def test_a_second_recognizer_sees_the_person_too(world, face_networks):
    """The guide's cosine rises, and so does the likeness to dlib, whatever the guide's tricks."""
    from nodes import common_ksampler

    model, vae = world
    recognizer = load_recognizer(face_networks / "fr_feature.onnx", RecognizerOptions(127.0, 128.0))
    photograph = load_photograph(MAN_FILE).movedim(-1, 1)
    with torch.no_grad():
        embedding = mean_embedding(recognizer, photograph, face_in(MAN_FILE))
    locator = demo_locator(demo_landmarks())
    energy = FaceIdentity(recognizer, embedding, locator)
    condition = Condition("identity", energy)
    assert condition.networks == (recognizer.network, *locator.networks)

    def run(strength: float):
        traces = []
        settings = HostSettings(preset("quality", strength=strength))
        guided = attach(model, (condition,), settings, vae, traces.append)
        with torch.inference_mode():
            cond, latent = said(), empty_latent(BATCH)
            (result,) = common_ksampler(
                guided, 3, STEPS, 1.0, "dpmpp_2m", "karras", cond, cond, latent
            )
            pictures = vae.decode(result["samples"]).movedim(-1, 1)
        found = [d for d in DlibFaces().distances(pictures, photograph[0]) if d is not None]
        assert len(found) > BATCH // 2  # dlib saw 6 unguided ones and 8 guided ones
        energies = traces[0].final["identity"]
        return 1.0 - sum(energies) / BATCH, sum(found) / len(found)

    cosine_before, distance_before = run(0.0)
    cosine, distance = run(0.2)
    assert cosine > cosine_before + 0.3  # 0.30 to 0.79 when it was written
    assert distance < 0.9 * distance_before  # 0.48 to 0.36 and, with other roundings, to 0.41
