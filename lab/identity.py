"""Ask a second face recognizer whether identity guidance makes the person.

    python -m lab.identity

The references are two synthetic portraits; the demo model is guided by a face recognizer to show
these people, and dlib's recognizer, which did not guide, measures the pictures. The noise is the
same for every row. Needs what 'make test' sets up; minutes on 2 CPU cores.
"""

import math
from pathlib import Path

import torch

from .world import DemoWorld  # first: it brings the host and the pack

# isort: split
from zmagic.guidance.conditions import Condition
from zmagic.guidance.energies import FaceIdentity
from zmagic.guidance.energies.face_identity import mean_embedding
from zmagic.guidance.faces.location import FaceLocator
from zmagic.guidance.means import known_mean
from zmagic.guidance.settings import PRESETS, preset
from zmagic.host.demo_model import MAN_FILE, WOMAN_FILE, face_in, load_photograph
from zmagic.host.demo_networks import demo_landmarks, demo_locator
from zmagic.host.face_networks import RecognizerOptions, load_recognizer

from .command_line import described
from .evaluators.dlib_faces import DlibFaces

RECOGNIZER = Path(__file__).resolve().parents[1] / ".host" / "networks" / "face" / "fr_feature.onnx"
# What the recognizer's own package subtracts and divides by.
OPTIONS = RecognizerOptions(mean=127.0, std=128.0)

PEOPLE = {"woman": WOMAN_FILE, "man": MAN_FILE}


def identity_condition(recognizer, locator: FaceLocator, file: Path) -> Condition:
    """The face of one of the portraits that come with the demo model."""
    with torch.inference_mode(False), torch.no_grad():
        photograph = load_photograph(file).movedim(-1, 1)
        embedding = mean_embedding(recognizer, photograph, face_in(file))
    energy = FaceIdentity(recognizer, embedding, locator)
    return Condition("identity", energy)


def main() -> None:
    parser = described("identity", __doc__)
    parser.add_argument(
        "--presets",
        nargs="+",
        default=["balanced", "fast"],
        choices=list(PRESETS),
        help="Presets of the settings to compare. Default: balanced fast.",
    )
    parser.add_argument(
        "--strengths",
        nargs="+",
        type=float,
        default=[0.1, 0.2],
        help="Strengths of the guidance to try with each preset. Default: 0.1 0.2.",
    )
    parser.add_argument(
        "--steps", type=int, default=12, help="Steps of the sampler. Default: %(default)s."
    )
    parser.add_argument(
        "--images", type=int, default=8, help="Pictures of each row. Default: %(default)s."
    )
    parser.add_argument(
        "--seed", type=int, default=3, help="Seed of the noise. Default: %(default)s."
    )
    options = parser.parse_args()

    world, evaluator = DemoWorld(), DlibFaces()
    recognizer, locator = load_recognizer(RECOGNIZER, OPTIONS), demo_locator(demo_landmarks())
    rows = [(name, strength) for name in options.presets for strength in options.strengths]
    run = {"seed": options.seed, "steps": options.steps, "batch": options.images}
    print("| person | preset | strength | cosine of the guide | distance of the evaluator |")
    print("|---|---|---|---|---|")
    for person, file in PEOPLE.items():
        photograph = load_photograph(file).movedim(-1, 1)
        condition = identity_condition(recognizer, locator, file)
        for name, strength in [("unguided", 0.0), *rows]:
            settings = preset("balanced" if name == "unguided" else name, strength=strength)
            latents, trace = world.sample([condition], settings, **run)
            mean = known_mean(trace.final["identity"])
            cosine = math.nan if mean is None else 1.0 - mean
            with torch.inference_mode():
                pictures = world.vae.decode(latents).movedim(-1, 1)
            found = [d for d in evaluator.distances(pictures, photograph[0]) if d is not None]
            print(
                f"| {person} | {name} | {strength:g} | {cosine:.3f} | "
                f"{sum(found) / max(1, len(found)):.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
