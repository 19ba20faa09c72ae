"""The networks that guide and those that judge, from the files that training makes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from .world import DemoWorld  # noqa: F401  # first: it brings the host and the pack

# isort: split
from zmagic.guidance.networks.face_models import FaceRecognizer, LandmarkRegressor
from zmagic.host.face_networks import (
    LandmarkOptions,
    RecognizerOptions,
    load_recognizer,
    load_regressor,
)
from zmagic.host.image_networks import InputOptions, load_network
from zmagic.host.onnx_networks import ImageNetwork
from zmagic.host.openclip import OpenClip, load_openclip

__all__ = ["KINDS", "Networks"]

PACK = Path(__file__).resolve().parents[1]
# Folder and file name of the one that guides and of the one that judges.
PLACES = {
    False: (PACK / "demo_models", "zmagic_demo_{}"),
    True: (Path(__file__).parent / "judges", "{}_judge"),
}

# Name of each network to the module of ``training`` that makes it.
KINDS = {"clip": "clip", "parser": "parser", "landmarks": "landmarks", "recognizer": "recognizer"}
SUFFIXES = (".onnx", ".safetensors")

# The demo parser and its judge take RGB in [0, 1] as it is.
PARSER_INPUT = InputOptions(mean=(0.0,), std=(255.0,))


@dataclass(frozen=True)
class Networks:
    """All networks of one role, each loaded when it is first asked for.

    Args:
        judging: the networks that never guide.
        files: kind to another file than the one that training makes.
    """

    judging: bool = False
    files: Mapping[str, Path] = field(default_factory=dict)

    def missing(self, kind: str) -> str | None:
        """What to do about a file that is not there, None if it is."""
        if self._file(kind) is not None:
            return None
        folder, name = PLACES[self.judging]
        wanted = self.files.get(kind, folder / f"{name.format(kind)}.*")
        judge = " --judge" if self.judging else ""
        return (
            f"the {'judging' if self.judging else 'guiding'} {kind} network is missing from "
            f"{wanted}; 'python -m training.{KINDS[kind]} --data PORTRAITS{judge}' makes it"
        )

    @cached_property
    def clip(self) -> OpenClip:
        """Text and image towers."""
        path = self._existing("clip")
        return load_openclip(path.stem, path, "benchmarks")

    @cached_property
    def parser(self) -> ImageNetwork:
        """Maps of class scores."""
        return load_network(self._existing("parser"), PARSER_INPUT, "")

    @cached_property
    def landmarks(self) -> LandmarkRegressor:
        """The points of a face in its box."""
        return load_regressor(self._existing("landmarks"), LandmarkOptions())

    @cached_property
    def recognizer(self) -> FaceRecognizer:
        """Embeddings of aligned faces."""
        return load_recognizer(self._existing("recognizer"), RecognizerOptions())

    def _existing(self, kind: str) -> Path:
        path = self._file(kind)
        if path is None:
            raise FileNotFoundError(self.missing(kind))
        return path

    def _file(self, kind: str) -> Path | None:
        if kind in self.files:
            candidates = [self.files[kind]]
        else:
            folder, name = PLACES[self.judging]
            candidates = [folder / (name.format(kind) + suffix) for suffix in SUFFIXES]
        return next((path for path in candidates if path.is_file()), None)
