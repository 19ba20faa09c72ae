"""Face detectors from model files, which are found by name and opened once."""

from pathlib import Path

from ..guidance.faces.detector_networks import Scrfd, UltraFace, is_detector, read_detector
from .face_packs import PACK_PLACE, USUAL_PACK, choices, find_network
from .model_files import ModelKind, Source
from .networks import shared

__all__ = ["detector_choices", "find_detector", "load_detector"]

FACE_DETECTORS = ModelKind("face detector", ("insightface", "detection", "onnx"), (".onnx",))

SOURCE = Source(
    "buffalo_l.zip of https://github.com/deepinsight/insightface/releases/tag/v0.7, unpacked; "
    "or scrfd_10g_bnkps.onnx beside AuraFace at https://huggingface.co/fal/AuraFace-v1; or "
    "UltraFace (version-RFB-320.onnx, 1.3 MB, MIT) at "
    "https://github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB",
    "275 MB",
    "buffalo_l and scrfd_10g_bnkps.onnx for non-commercial research only",
    name=USUAL_PACK,
    place=PACK_PLACE,
)

# Their names in buffalo_l, antelopev2, buffalo_m, and buffalo_s.
PACK_FILES = ("det_10g.onnx", "scrfd_10g_bnkps.onnx", "det_2.5g.onnx", "det_500m.onnx")


def detector_choices() -> list[str]:
    """List the packs and files that a node offers."""
    return choices(FACE_DETECTORS, USUAL_PACK)


def find_detector(name: str) -> Path:
    """Find the file of a detector; see ``find_network``."""
    return find_network(FACE_DETECTORS, name, SOURCE, is_detector, PACK_FILES)


def load_detector(path: Path, min_score: float) -> Scrfd | UltraFace:
    """Load the detector in a file, once for all nodes that use it; see ``read_detector``."""
    return shared("face detector", path, min_score, lambda: read_detector(path, min_score))
