"""The demo model's text encoder inside the real host: it reads as it was trained, and is obeyed."""

import logging

import comfy.lora
import comfy.utils
import nodes
import pytest
import torch
from torch.nn import functional as F

from zmagic.host import demo_model
from zmagic.host.demo_networks import demo_clip
from zmagic.lab.training import diffusion, painter

from .demo_sampling import empty_latent, said

PROMPT = "a photo of a young woman with long red hair, without glasses, green background"


@pytest.fixture(scope="module")
def clip():
    with torch.inference_mode():
        return demo_model.load_text_encoder()


@pytest.fixture
def fresh():
    """A text encoder that has read nothing yet."""
    with torch.inference_mode():
        return demo_model.load_text_encoder()


def encoded(clip, text: str = PROMPT) -> torch.Tensor:
    """What CLIP Text Encode says of a prompt, ``[1, 77, 128]``."""
    with torch.inference_mode():
        (((context, _),),) = nodes.CLIPTextEncode().encode(clip, text)
        return context.clone()


@pytest.mark.parametrize("text", [PROMPT, ""])
def test_a_prompt_is_read_as_in_training(clip, text):
    weights = comfy.utils.load_torch_file(str(demo_model.TEXT_ENCODER_FILE))
    trained = painter.empty_text_encoder()
    whole = demo_model.with_whole_vocabulary(weights)
    trained.load_state_dict({key: value.float() for key, value in whole.items()})
    with torch.no_grad():
        expected = trained(diffusion.tokens_of([text]))[0]
    assert expected.shape == (1, 77, 128)
    torch.testing.assert_close(encoded(clip, text), expected)


# ---------------------------------------------------------------- words


def warnings(caplog, clip, *texts: str) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        for text in texts:
            encoded(clip, text)
    return [record.getMessage() for record in caplog.records]


def test_words_that_the_model_was_never_told_are_named_once(caplog, fresh):
    texts = ("a photo of an astronaut", "an astronaut (riding:1.2) a Horse, a horse.")
    assert warnings(caplog, fresh, *texts) == [
        "Z-Magic: the demo model was never told 'astronaut': it means nothing to it",
        "Z-Magic: the demo model was never told 'riding', 'horse': they mean nothing to it",
    ]
    assert warnings(caplog, fresh.clone(), *texts) == []


def test_a_word_of_several_tokens_is_named_whole(caplog, fresh):
    (sentence,) = warnings(caplog, fresh, "a photo of zmagicians, caf\u00e9s")
    assert "told 'zmagicians', 'caf\u00e9s': they" in sentence


@pytest.mark.parametrize("text", ["", PROMPT, f"({PROMPT}:1.3), smiling", "A photo. (a man) - !"])
def test_nothing_is_said_of_words_that_it_knows(caplog, fresh, text):
    assert warnings(caplog, fresh, text) == []


# ---------------------------------------------------------------- as the host's own


def test_takes_a_lora(clip):
    keys = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, {})
    name = "lora_te_text_model_encoder_layers_1_mlp_fc1"
    rows, columns = clip.cond_stage_model.state_dict()[keys[name]].shape
    weights = {
        f"{name}.lora_up.weight": torch.randn(rows, 2),
        f"{name}.lora_down.weight": torch.randn(2, columns),
    }
    patched = clip.clone()
    assert patched.add_patches(comfy.lora.load_lora(weights, keys)) == [keys[name]]
    before = encoded(clip)
    assert not torch.equal(encoded(patched), before)
    assert torch.equal(encoded(clip), before)


def test_can_be_copied_with_its_weights(clip):
    """The host re-reads the file for training and for a second device."""
    copy = clip.clone()
    copy.patcher = clip.patcher.clone(force_deepcopy=True)
    copy.cond_stage_model = copy.patcher.model
    assert copy.cond_stage_model is not clip.cond_stage_model
    assert torch.equal(encoded(copy), encoded(clip))


# ---------------------------------------------------------------- pictures

OPPOSITES = {
    "hair": ("a photo of a person with red hair", "a photo of a person with black hair"),
    "gender": ("a photo of a woman", "a photo of a man"),
    "beard": ("a photo of a man with a beard", "a photo of a man without a beard"),
    "glasses": ("a photo of a person wearing glasses", "a photo of a person without glasses"),
    "hat": ("a photo of a person wearing a hat", "a photo of a person without a hat"),
    "clothing": ("a photo of a person wearing yellow", "a photo of a person wearing blue"),
    "smile": ("a photo of a person smiling", "a photo of a person not smiling"),
}


@pytest.fixture(scope="module")
def model_and_vae():
    with torch.inference_mode():
        return demo_model.load_unet(), demo_model.load_autoencoder()


@pytest.mark.slow
@pytest.mark.parametrize("texts", OPPOSITES.values(), ids=OPPOSITES.keys())
def test_pictures_show_what_the_prompt_says(model_and_vae, texts):
    """Of the pictures of one seed, CLIP finds the sentence in the one that was asked for it."""
    model, vae = model_and_vae
    network = demo_clip()
    with torch.inference_mode():
        pictures = []
        for text in texts:
            (latent,) = nodes.common_ksampler(
                model, 1, 12, 3.0, "dpmpp_2m", "karras", said(text), said(), empty_latent(4)
            )
            pictures.append(vae.decode(latent["samples"]).movedim(-1, 1).float().clamp(0.0, 1.0))
        seen = network.embeddings(torch.cat(pictures))  # four of the first prompt, then the others
        meant = network.texts(list(texts)).to(seen)
        first, second = F.cosine_similarity(seen[:, None], meant[None], dim=2).T
    margins = (first - second).unflatten(0, (2, 4))
    print(margins)
    assert (margins[0] > margins[1]).sum() >= 3
    assert margins[0].mean() > 0.0 > margins[1].mean()
