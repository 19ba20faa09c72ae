"""A plain open_clip model in the energies: its own embeddings, its own preprocessing."""

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import image_transform_v2
from PIL import Image
from skimage import data

from zmagic.guidance import ImageSimilarity, Style, Text
from zmagic.guidance.networks.open_clip_towers import OpenClipTowers

VISION = {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 8, "layers": 3}
TEXT = {"width": 32, "heads": 4, "layers": 2}
PREPROCESSING = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4), "interpolation": "bilinear"}


def model(**preprocessing):
    made = open_clip.CLIP(16, VISION, TEXT)
    if preprocessing:
        config = open_clip.transform.PreprocessCfg(size=32, **preprocessing)
        open_clip.model.set_model_preprocess_cfg(made, config.__dict__)
    return made


def towers(**preprocessing) -> OpenClipTowers:
    return OpenClipTowers(model(**preprocessing), open_clip.get_tokenizer("ViT-B-32"))


@pytest.mark.parametrize(
    "stated",
    [
        {},
        PREPROCESSING,
        {**PREPROCESSING, "resize_mode": "squash"},
        {**PREPROCESSING, "resize_mode": "longest"},
    ],
    ids=["nothing", "crop", "squash", "pad"],
)
def test_preprocessing_is_that_of_the_model(stated):
    photograph = 64 + data.astronaut()[:200, :150] // 2  # bicubic weights overshoot, theirs are cut
    config = open_clip.transform.PreprocessCfg(size=32, **stated)
    expected = image_transform_v2(config, is_train=False)(Image.fromarray(photograph))
    picture = torch.from_numpy(np.moveaxis(photograph, -1, 0).copy())[None] / 255.0
    made = towers(**stated).preprocessing(picture)[0]
    assert torch.allclose(made, expected, atol=1.5 / 255 / min(config.std))  # theirs has 8 bits


def test_an_unknown_way_to_resize_is_refused():
    with pytest.raises(ValueError, match="'widest', expected one of shortest, squash, longest"):
        towers(resize_mode="widest")


def test_embeddings_are_the_models_and_differentiable():
    both = towers()
    tokens = both.tokenizer(["a cat", "a boat"])
    texts = both.texts(["a cat", "a boat"])
    assert torch.equal(texts, both.model.encode_text(tokens)) and not texts.requires_grad
    pixels = torch.rand(2, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    embeddings = both.image(pixels)
    assert torch.equal(embeddings, both.model.encode_image(pixels.float()))
    (gradient,) = torch.autograd.grad(embeddings.sum(), pixels)
    assert gradient.abs().max() > 0.0
    assert not any(weight.requires_grad for weight in both.model.parameters())
    assert not both.model.training


def test_energies_take_the_parts_as_they_are():
    both = towers()
    reference = torch.rand(1, 3, 40, 50)
    blocks = both.after_blocks(1, 3)
    assert [tuple(each.shape) for each in blocks(both.preprocessing(reference))] == [
        (1, 32, 4, 4)
    ] * 2
    style = Style.of(blocks, both.preprocessing, reference)
    text = Text(both.image, both.preprocessing, both.texts(["a cat"]), torch.ones(1))
    similar = ImageSimilarity(
        both.image, both.preprocessing, both.pictures(reference), torch.ones(1)
    )
    assert style(reference).item() == pytest.approx(0.0, abs=1e-6)
    assert similar(reference).item() == pytest.approx(0.0, abs=1e-6)
    image = torch.rand(2, 3, 40, 50)
    for energy in (style, text, similar):
        assert energy(image).shape == (2,) and (energy(image) > 0.01).all()
