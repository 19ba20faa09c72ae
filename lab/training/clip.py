"""Train the small CLIP.

    python -m lab.training.clip --data FOLDER [--evaluator]

Model, tokenizer, preprocessing and loss are open_clip's. The loop is ours, so that a run may be
stopped, and the questions, without which a thousand portraits do not suffice. The model sees
through the residual network of the first CLIP (Radford et al., ICML 2021), the evaluator through a
RegNet (Radosavovic et al., CVPR 2020). Both pool by attention that knows places: an average hardly
tells the color of clothing from that of a background. The configurations are the JSON files beside
the weights.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .captions import QUESTIONS, UNANSWERED, some_of
from .data import Portraits, Variation, read_portraits, varied
from .running import DEMO_MODELS, EVALUATORS, parameters, read_command_line, read_weights
from .trainer import Trainer

MINUTES = 120.0
LEARNING_RATE = 1e-3
BATCH = 64
# Colors are what captions speak of: they stay, but for a little light.
VARIATION = Variation(scale=0.15, shift=0.05, roll=0.12, light=0.08)

PROMPTS = [prompt for question in QUESTIONS.values() for prompt in question.prompts.values()]
# Sentences about each picture, drawn before the first step.
SENTENCES = 16
# What an embedding is multiplied by for the directions: one of length 1 has soft answers only.
SHARPNESS = 10.0

CONFIG, EVALUATOR_CONFIG = DEMO_MODELS / "zmagic_demo_clip.json", EVALUATORS / "clip_evaluator.json"


class WithAnswers(nn.Module):
    """A CLIP and, for its training, one direction for each answer to the questions.

    A product of two towers learns an attribute only when both begin to see it, which can take
    longer than all the rest. The directions show it to the image tower at once.
    """

    def __init__(self, config: Path):
        super().__init__()
        self.model = empty_model(config)
        features = open_clip.get_model_config(config.stem)["embed_dim"]
        self.directions = nn.Linear(features, len(PROMPTS))


@dataclass(frozen=True, eq=False)
class Told:
    """The sentences and answers about N pictures.

    Attributes:
        sentences: ``[N, SENTENCES, L]`` tokens.
        prompts: ``[A, L]`` tokens of the answers to all questions.
        answers: ``[Q, N]``, see ``answers_of``.
    """

    sentences: Tensor
    prompts: Tensor
    answers: Tensor

    @staticmethod
    def about(labels: Sequence[dict], tokens) -> "Told":
        """Random sentences about pictures; ``tokens``: the model's tokenizer."""
        device = torch.get_default_device()
        with torch.device("cpu"):  # tokens are written one by one
            texts = [some_of(label) for label in labels for _ in range(SENTENCES)]
            sentences = tokens(texts).unflatten(0, (len(labels), SENTENCES))
            prompts = tokens(PROMPTS)
        return Told(sentences.to(device), prompts.to(device), answers_of(labels))


def main() -> None:
    run = read_command_line("clip", __doc__, MINUTES, BATCH)
    train, held_out = read_portraits(run.data, "train"), read_portraits(run.data, "test")
    how = VARIATION.toward(run.evaluator)
    config = EVALUATOR_CONFIG if run.evaluator else CONFIG
    tokens = open_clip.get_tokenizer(prepared(config))
    network = WithAnswers(config)
    run.started(network.model)
    told = Told.about(train.labels, tokens)
    trainer = Trainer(run, network, LEARNING_RATE, weight_decay=0.1)
    model = trainer.train(lambda: loss(trainer.module, told, train, run.batch, how)).model
    run.write_weights(model)
    figures = evaluated(model, tokens, held_out)
    trainer.write_report({"parameters": parameters(model), **figures})


def loss(
    network: WithAnswers, told: Told, portraits: Portraits, batch: int, how: Variation
) -> Tensor:
    """The loss of a random batch: CLIP's, and that of the answers to all questions.

    A sentence may fit many portraits of a batch, for which CLIP's loss punishes it. The prompts of
    a question exclude each other (Yang et al., "Unified Contrastive Learning in Image-Text-Label
    Space", CVPR 2022).
    """
    places = portraits.drawn(batch)
    answers = told.answers[:, places]
    pictures, _, _ = varied(portraits.pictures(places), how)
    texts = torch.cat((told.sentences[places, torch.randint(SENTENCES, (batch,))], told.prompts))
    image, text, scale = network.model(normalized(pictures), texts)
    image, text, scale = image.float(), text.float(), scale.float()
    contrasted = open_clip.ClipLoss()(image, text[:batch], scale)
    by_prompts = scale * image @ text[batch:].T
    by_directions = network.directions(SHARPNESS * image).float()
    return contrasted + asked(by_prompts, answers) + asked(by_directions, answers)


def answers_of(labels: Sequence[dict]) -> Tensor:
    """``[Q, N]``: for each question the places of the right prompts, UNANSWERED without one."""
    return torch.stack([question.places(labels) for question in QUESTIONS.values()])


def asked(logits: Tensor, answers: Tensor) -> Tensor:
    """Mean cross-entropy of the answers.

    Args:
        logits: ``[B, A]``, of all answers to all questions.
        answers: ``[Q, B]``, see ``answers_of``.
    """
    parts = logits.split([len(question.prompts) for question in QUESTIONS.values()], dim=1)
    return torch.stack([_answered(*pair) for pair in zip(parts, answers, strict=True)]).mean()


def _answered(logits: Tensor, right: Tensor) -> Tensor:
    """Cross-entropy over the pictures that have an answer, 0 without one."""
    count = (right != UNANSWERED).sum().clamp_min(1)
    return F.cross_entropy(logits, right, ignore_index=UNANSWERED, reduction="sum") / count


def empty_model(config: Path) -> nn.Module:
    """The model of a configuration, with random weights."""
    return open_clip.create_model(prepared(config))


def prepared(config: Path) -> str:
    """The name by which open_clip knows a configuration from now on."""
    if config.stem not in open_clip.list_models():
        open_clip.add_model_config(config)
    return config.stem


def load_evaluator() -> nn.Module:
    """The evaluator as it was trained; its pictures are prepared by ``normalized``."""
    return read_weights(empty_model(EVALUATOR_CONFIG), EVALUATORS / "clip_evaluator.safetensors")


def evaluator_tokens() -> Callable[[Sequence[str]], Tensor]:
    """The evaluator's tokenizer."""
    return open_clip.get_tokenizer(prepared(EVALUATOR_CONFIG))


def normalized(pictures: Tensor) -> Tensor:
    """Pictures in [0, 1] on the scale that open_clip has for weights of which it knows nothing."""
    mean, std = (
        pictures.new_tensor(values).view(1, 3, 1, 1)
        for values in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    return (pictures - mean) / std


@torch.no_grad()
def picture_features(network: nn.Module, pictures: Tensor) -> Tensor:
    """Embeddings ``[N, D]`` of unit length of ``pictures [N, 3, 128, 128]`` in [0, 1]."""
    found = [
        network.encode_image(normalized(part), normalize=True) for part in pictures.split(BATCH)
    ]
    return torch.cat(found)


@torch.no_grad()
def evaluated(network: nn.Module, tokens, portraits: Portraits) -> dict:
    """Zero-shot accuracy on people it was not trained on, each attribute by its own prompts.

    The prompts are those of the training: what is tested is whether it sees new people right.
    """
    features = picture_features(network, portraits.pictures())
    right = answered(network, tokens, features, portraits.labels)
    return {
        "held-out pictures": {name: len(found) for name, found in right.items()},
        "zero-shot accuracy": {name: share_of(found) for name, found in right.items()},
    }


@torch.no_grad()
def answered(
    network: nn.Module,
    tokens,
    features: Tensor,
    labels: Sequence[dict],
    questions: Iterable[str] = QUESTIONS,
) -> dict[str, Tensor]:
    """By question, which of the pictures that have an answer are given the right one.

    Args:
        features: ``[N, D]`` of the pictures, see ``picture_features``.
        labels: what they show, or were asked to.
    """
    results = {}
    for name in questions:
        question = QUESTIONS[name]
        texts = network.encode_text(tokens(list(question.prompts.values())), normalize=True)
        right = question.places(labels)
        results[name] = ((features @ texts.T).argmax(1) == right)[right != UNANSWERED]
    return results


def share_of(found: Tensor) -> float:
    """The share of right answers, 0 of none."""
    return round(found.sum().item() / max(1, len(found)), 4)


if __name__ == "__main__":
    main()
