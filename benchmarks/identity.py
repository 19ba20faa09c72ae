"""Does identity guidance make the person, or please the network? ``python -m benchmarks.identity``

Two rendered people who do not exist are references; the demo model is guided by a face recogniser
to show them, and dlib's recogniser, which did not guide, judges the pictures. Same noise for every
row. Needs what 'make test' sets up; minutes on 2 CPU cores.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from .world import DemoWorld  # first: it brings the host and the pack

# isort: split
from zmagic.guidance.conditions import Condition
from zmagic.guidance.energies import FaceIdentity
from zmagic.guidance.energies.face_identity import mean_embedding
from zmagic.guidance.face_location import FaceLocator
from zmagic.guidance.faces import Faces
from zmagic.guidance.settings import preset
from zmagic.host.demo_model import MAN_FILE, WOMAN_FILE, load_photograph
from zmagic.host.face_networks import RecognizerOptions, load_recognizer

from .judges.dlib_faces import DlibFaces

RECOGNIZER = Path(__file__).resolve().parents[1] / ".host" / "networks" / "face" / "fr_feature.onnx"
# What the recogniser's own package subtracts and divides by.
OPTIONS = RecognizerOptions(mean=127.0, std=128.0)

# Where eyes, nose and mouth are in the demo model's portraits, on average.
PORTRAIT = Faces.from_points(
    torch.tensor([[[0.40, 0.425], [0.60, 0.425], [0.50, 0.57], [0.44, 0.67], [0.56, 0.67]]]), 1.0
)
PEOPLE = {"woman": WOMAN_FILE, "man": MAN_FILE}


def identity_condition(recognizer, photograph: Tensor) -> Condition:
    """The face of ``photograph [1, 3, H, W]``, a portrait like the demo model's."""
    with torch.inference_mode(False), torch.no_grad():
        embedding = mean_embedding(recognizer, photograph, PORTRAIT)
    energy = FaceIdentity(recognizer, embedding, FaceLocator(fixed=PORTRAIT))
    return Condition("identity", energy, networks=(recognizer.network,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", default=["balanced", "fast"])
    parser.add_argument("--strengths", nargs="+", type=float, default=[0.1, 0.2])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--images", type=int, default=8, help="images of one batch")
    parser.add_argument("--seed", type=int, default=3)
    options = parser.parse_args()

    world, judge = DemoWorld(), DlibFaces()
    recognizer = load_recognizer(RECOGNIZER, OPTIONS)
    rows = [(name, strength) for name in options.presets for strength in options.strengths]
    run = {"seed": options.seed, "steps": options.steps, "batch": options.images}
    print("| person | preset | strength | cosine of the guide | distance of the judge |")
    print("|---|---|---|---|---|")
    for person, file in PEOPLE.items():
        photograph = load_photograph(file).movedim(-1, 1)
        condition = identity_condition(recognizer, photograph)
        for name, strength in [("unguided", 0.0), *rows]:
            settings = preset("balanced" if name == "unguided" else name, strength=strength)
            latents, trace = world.sample([condition], settings, **run)
            cosine = 1.0 - sum(trace.final["identity"]) / options.images
            with torch.inference_mode():
                pictures = world.vae.decode(latents).movedim(-1, 1)
            found = [d for d in judge.distances(pictures, photograph[0]) if d is not None]
            print(
                f"| {person} | {name} | {strength:g} | {cosine:.3f} | "
                f"{sum(found) / max(1, len(found)):.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
