"""The attribute networks and the evaluators, from the files that training makes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from torch import Tensor

from .world import DemoWorld  # noqa: F401  # first: it brings the host and the pack

# isort: split
import comfy.model_management

from zmagic.guidance.faces.networks import FaceRecognizer, LandmarkNetwork
from zmagic.guidance.pictures.preprocessing import Preprocessing
from zmagic.host.demo_networks import demo_clip, demo_landmarks, demo_parser, demo_recognizer
from zmagic.host.image_networks import ImageNetwork
from zmagic.host.networks import Network
from zmagic.host.openclip import OpenClip
from zmagic.lab.training import landmarks, parser, recognizer

__all__ = ["KINDS", "Networks"]

PACK = Path(__file__).resolve().parents[1]
# Folder and file name of an attribute network (False) and of an evaluator (True).
PLACES = {
    False: (PACK / "demo_models", "zmagic_demo_{}"),
    True: (Path(__file__).parent / "evaluators", "{}_evaluator"),
}

# Each is made by the module of ``training`` of the same name.
KINDS = ("clip", "parser", "landmarks", "recognizer")
SUFFIXES = (".onnx", ".safetensors")

# The aligned crop that the evaluator of faces sees: pixels from -1 to 1.
RECOGNIZER_INPUT = Preprocessing((112, 112), (0.5,), (0.5,))
LANDMARK_INPUT = Preprocessing((landmarks.SIDE, landmarks.SIDE))

Parser = Callable[[Tensor], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Networks:
    """All networks of one role, each loaded when it is first asked for.

    Args:
        evaluating: whether these are the evaluators, which never guide.
        files: kind to another file than the one that training makes.
    """

    evaluating: bool = False
    files: Mapping[str, Path] = field(default_factory=dict)

    def __reduce__(self):
        """Another process loads its own."""
        return Networks, (self.evaluating, dict(self.files))

    def files_of(self, kinds: Iterable[str]) -> list[Path]:
        """The files of some networks, in the order of their kinds."""
        return [self._existing(kind) for kind in sorted(set(kinds))]

    def missing(self, kind: str) -> str | None:
        """Return what to do about a file that is not there, None if it is."""
        if self._file(kind) is not None:
            return None
        folder, name = PLACES[self.evaluating]
        wanted = self.files.get(kind, folder / f"{name.format(kind)}.*")
        option = " --evaluator" if self.evaluating else ""
        return (
            f"the {kind} {'evaluator' if self.evaluating else 'attribute network'} is missing from "
            f"{wanted}; 'python -m lab.training.{kind} --data PORTRAITS{option}' makes it"
        )

    @cached_property
    def clip(self) -> OpenClip:
        """Text and image towers; their configuration is the JSON file beside the weights."""
        clip = demo_clip(self._existing("clip"))
        self._load(clip.image)
        return clip

    @cached_property
    def parser(self) -> ImageNetwork | Parser:
        """Pictures to maps of class scores."""
        path = self._existing("parser")
        if not self._is_trained_evaluator("parser"):
            return demo_parser(path)
        evaluator = self._load(Network(parser.load_evaluator(), path.name))
        return lambda pictures: (evaluator(parser.normalized(pictures)),)

    @cached_property
    def landmarks(self) -> LandmarkNetwork:
        """The points of a face in its box."""
        path = self._existing("landmarks")
        if not self._is_trained_evaluator("landmarks"):
            return demo_landmarks(path)
        return LandmarkNetwork(
            self._load(Network(landmarks.load_evaluator(), path.name)),
            LANDMARK_INPUT,
            landmarks.POINTS,
            margin=1.0,
            square=False,
            signed=False,
        )

    @cached_property
    def recognizer(self) -> FaceRecognizer:
        """Embeddings of aligned faces."""
        path = self._existing("recognizer")
        if not self._is_trained_evaluator("recognizer"):
            return demo_recognizer(path)
        evaluator = self._load(Network(recognizer.load_evaluator(), path.name))
        return FaceRecognizer(evaluator, RECOGNIZER_INPUT)

    def _load(self, network: Network) -> Network:
        """The same network; an evaluator is put on ComfyUI's device here, since no run loads it."""
        if self.evaluating:
            comfy.model_management.load_models_gpu([network.patcher])
        return network

    def _is_trained_evaluator(self, kind: str) -> bool:
        """Return whether it is one of ours, which no node loads: an evaluator never guides."""
        return self.evaluating and kind not in self.files

    def _existing(self, kind: str) -> Path:
        path = self._file(kind)
        if path is None:
            raise FileNotFoundError(self.missing(kind))
        return path

    def _file(self, kind: str) -> Path | None:
        if kind in self.files:
            candidates = [self.files[kind]]
        else:
            folder, name = PLACES[self.evaluating]
            candidates = [folder / (name.format(kind) + suffix) for suffix in SUFFIXES]
        return next((path for path in candidates if path.is_file()), None)
