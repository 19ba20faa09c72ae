"""What a file of weights does not tell: the colors and the activation of their training."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..guidance.networks.open_clip_towers import DEFAULTS, preprocessing_of
from ..guidance.pictures.preprocessing import Preprocessing
from ..guidance.wording import quoted
from .openclip_configs import Facts, facts_beside
from .openclip_preferences import preference_of
from .openclip_weights import open_clip, published_tag

__all__ = ["ACTIVATIONS", "NORMALIZATIONS", "Training", "training_of"]

AUTOMATIC = "automatic"

# Mean and standard deviation of colors in [0, 1], for what open_clip's weights were trained with.
NORMALIZATIONS = {
    AUTOMATIC: None,
    "OpenAI": (DEFAULTS["mean"], DEFAULTS["std"]),
    "-1 to 1": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
# Whether it is the quick one.
ACTIVATIONS = {AUTOMATIC: None, "GELU": False, "QuickGELU": True}

# What preprocessing depends on in a published configuration.
PREPROCESSING_KEYS = tuple(DEFAULTS)


@dataclass(frozen=True)
class Training:
    """How weights were trained, as far as it is known.

    Attributes:
        mean, std, interpolation, resize_mode: the parameters of open_clip's preprocessing.
        quick: whether the activation is QuickGELU; None: the architecture's.
        assumed: a sentence about what is only assumed, empty if nothing is.
        preference: the model of preferences that the file is named after, empty for others.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    resize_mode: str
    quick: bool | None = None
    assumed: str = ""
    preference: str = ""

    def preprocessing(self, size: int | tuple[int, int]) -> Preprocessing:
        """Make the preprocessing; ``size``: the side of the tower's input, or height and width."""
        return preprocessing_of(size, {key: getattr(self, key) for key in PREPROCESSING_KEYS})


def training_of(
    architecture: str, path: Path, normalization: str = AUTOMATIC, activation: str = AUTOMATIC
) -> Training:
    """Find out how the weights in a file were trained.

    That is what was chosen; else what the configuration beside the file tells; else as the
    published weights or the model of preferences that it is named after; else as most weights of
    the architecture.

    Args:
        normalization, activation: what was chosen, one of NORMALIZATIONS and of ACTIVATIONS.

    Raises:
        ValueError: the configuration beside the file is of another architecture, or unusable.
    """
    facts = facts_beside(path)
    if facts is not None:
        _check_architecture(architecture, path, facts)
    published = _published(architecture, path.name)
    known = dict(published)
    preference = preference_of(path)
    if preference is not None:
        known |= preference.preprocessing
    if facts is not None:
        known |= {key: v for key in PREPROCESSING_KEYS if (v := facts.preprocessing.get(key))}
    chosen = NORMALIZATIONS[normalization]
    if chosen is not None:
        known["mean"], known["std"] = chosen
    said = facts is not None or preference is not None or _is_published(architecture, path)
    quick = ACTIVATIONS[activation]
    if quick is None and facts is not None and facts.model:
        quick = bool(facts.model.get("quick_gelu", False))
    assumptions = []
    if not said and chosen is None:
        assumptions.append(
            f"colors of mean {_listed(known['mean'])} and std {_listed(known['std'])}"
        )
    if not said and quick is None and _may_be_quick(architecture):
        assumptions.append(f"the activation {'QuickGELU' if _is_quick(architecture) else 'GELU'}")
    assumed = ""
    if assumptions:
        assumed = (
            f"nothing says how {quoted(path.name)} was trained. Assumed: {', '.join(assumptions)}, "
            f"as of most weights for {architecture}.\nPut it and its open_clip_config.json into a "
            "folder of their own, or choose 'normalization' and 'activation'"
        )
    return Training(
        tuple(known["mean"]),
        tuple(known["std"]),
        known["interpolation"],
        known["resize_mode"],
        quick,
        assumed,
        "" if preference is None else preference.name,
    )


def _is_published(architecture: str, path: Path) -> bool:
    return published_tag(architecture, path.name) is not None


def _published(architecture: str, name: str) -> dict[str, Any]:
    """Preprocessing of the weights that a file is named after, or of most for the architecture."""
    module = open_clip()
    tag = published_tag(architecture, name)
    tags = [tag] if tag else module.list_pretrained_tags_by_model(architecture)
    configs = [module.get_pretrained_cfg(architecture, tag) for tag in tags] or [{}]
    votes = Counter(
        tuple(config.get(key) or DEFAULTS[key] for key in PREPROCESSING_KEYS) for config in configs
    )
    return dict(zip(PREPROCESSING_KEYS, votes.most_common(1)[0][0], strict=True))


def _check_architecture(architecture: str, path: Path, facts: Facts) -> None:
    """Raise ValueError if a file's configuration is that of another architecture."""
    if not facts.model:
        return
    module = open_clip()
    wanted = _shape(module.get_model_config(architecture))
    if _shape(facts.model) == wanted:
        return
    fitting = [
        name
        for name in module.list_models()
        if _shape(module.get_model_config(name)) == _shape(facts.model)
    ]
    choose = f"choose {' or '.join(map(quoted, fitting[:3]))}" if fitting else "choose another"
    raise ValueError(
        f"{choose} at 'architecture'.\n{facts.file.name} beside {quoted(path.name)} says that its "
        f"weights are not those of {architecture}"
    )


def _shape(config: dict[str, Any]) -> tuple:
    """What makes two configurations models of the same weights."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    picture = ("image_size", "layers", "width", "patch_size", "timm_model_name")
    return (
        config["embed_dim"],
        *(_plain(vision.get(key)) for key in picture),
        *(_plain(text.get(key)) for key in ("context_length", "width", "layers", "hf_model_name")),
    )


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _is_quick(architecture: str) -> bool:
    return bool(open_clip().get_model_config(architecture).get("quick_gelu", False))


def _may_be_quick(architecture: str) -> bool:
    """Whether there are weights for the architecture with either activation."""
    return _is_quick(architecture) or f"{architecture}-quickgelu" in open_clip().list_models()


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)
