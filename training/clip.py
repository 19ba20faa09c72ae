"""Train the small CLIP: ``python -m training.clip --data FOLDER [--judge]``

Model, tokenizer, preprocessing and loss are open_clip's; only the loop is ours, so that a run may
be stopped. The model has a vision transformer, the judge a convolutional network (Radford et al.,
"Learning Transferable Visual Models From Natural Language Supervision", ICML 2021, has both). Their
configurations are the JSON files beside the weights.
"""

from pathlib import Path

import open_clip
import torch
from torch import Tensor, nn

from .captions import QUESTIONS, some_of
from .data import Portraits, Variation, read_portraits, varied
from .running import DEMO_MODELS, JUDGES, Trainer, read_command_line, read_weights

MINUTES = 120.0
LEARNING_RATE = 1e-3
BATCH = 64
# Colours are what captions speak of: they stay, but for a little light.
VARIATION = Variation(scale=0.15, shift=0.05, roll=0.12, light=0.08)

CONFIG, JUDGE_CONFIG = DEMO_MODELS / "zmagic_demo_clip.json", JUDGES / "clip_judge.json"


def main() -> None:
    run = read_command_line("clip", __doc__, MINUTES, "judge")
    train, held_out = read_portraits(run.data, "train"), read_portraits(run.data, "test")
    config = JUDGE_CONFIG if run.judge else CONFIG
    model = empty_model(config)
    tokens = open_clip.get_tokenizer(config.stem)
    contrast = open_clip.ClipLoss()

    def loss() -> Tensor:
        places = train.drawn(BATCH)
        pictures, _, _ = varied(train.pictures(places), VARIATION)
        texts = tokens([some_of(train.labels[place]) for place in places.tolist()])
        image, text, scale = trainer.module(normalised(pictures), texts)
        return contrast(image.float(), text.float(), scale.float())

    trainer = Trainer(run, model, LEARNING_RATE, weight_decay=0.1)
    network = trainer.train(loss)
    run.write_weights(network)
    run.write_report(trainer, evaluated(network, tokens, held_out))


def empty_model(config: Path) -> nn.Module:
    """The model of a configuration, with random weights."""
    if config.stem not in open_clip.list_models():
        open_clip.add_model_config(config)
    return open_clip.create_model(config.stem)


def load_judge() -> nn.Module:
    """The judge as it was trained; its pictures are prepared by ``normalised``."""
    return read_weights(empty_model(JUDGE_CONFIG), JUDGES / "clip_judge.safetensors")


def normalised(pictures: Tensor) -> Tensor:
    """From [0, 1] to the scale that open_clip has for weights of which it knows nothing."""
    mean, std = (
        pictures.new_tensor(values).view(1, 3, 1, 1)
        for values in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    return (pictures - mean) / std


@torch.no_grad()
def picture_features(network: nn.Module, pictures: Tensor) -> Tensor:
    """Embeddings ``[N, D]`` of unit length of ``pictures [N, 3, 128, 128]`` in [0, 1]."""
    found = [
        network.encode_image(normalised(part), normalize=True) for part in pictures.split(BATCH)
    ]
    return torch.cat(found)


@torch.no_grad()
def evaluated(network: nn.Module, tokens, portraits: Portraits) -> dict:
    """Zero-shot accuracy on people it was not trained on, each attribute by its own prompts."""
    features = picture_features(network, portraits.pictures())
    accuracy, asked = {}, {}
    for name, question in QUESTIONS.items():
        values = list(question.prompts)
        texts = network.encode_text(tokens(list(question.prompts.values())), normalize=True)
        chosen = (features @ texts.T).argmax(1).tolist()
        answers = [question.answer(label) for label in portraits.labels]
        right = [
            values[choice] == answer
            for choice, answer in zip(chosen, answers, strict=True)
            if answer is not None
        ]
        accuracy[name] = round(sum(right) / max(1, len(right)), 4)
        asked[name] = len(right)
    return {"held-out pictures": asked, "zero-shot accuracy": accuracy}


if __name__ == "__main__":
    main()
