"""The diffusion model as it is trained is the one that ComfyUI runs."""

import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import pytest
import torch

from zmagic.lab.training import diffusion, painter
from zmagic.lab.training.data import Portraits

PROMPT = "a photo of a young woman with long red hair, wearing glasses"


@pytest.fixture(scope="module")
def made():
    torch.manual_seed(1)
    return painter.Painter().eval()


def test_the_text_encoder_says_what_comfyui_reads(made):
    weights = {key: value.detach().clone() for key, value in made.text.state_dict().items()}
    target = comfy.supported_models_base.ClipTarget(
        comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel
    )
    options = {"clip_l_model_config": dict(painter.TEXT_CONFIG), "dtype": torch.float32}
    clip = comfy.sd.CLIP(target, state_dict=[weights], model_options=options)
    for prompt in (PROMPT, ""):
        with torch.inference_mode():
            expected = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))[0][0]
        found = made.text(diffusion.tokens_of([prompt]))[0]
        torch.testing.assert_close(found, expected.clone())


def test_a_file_has_the_words_of_the_captions_alone(made, tmp_path):
    run = diffusion.Run("unet", tmp_path, 1.0, out=tmp_path)
    told = diffusion.tokens_of([PROMPT])
    diffusion.write(run, made, told)
    kept = diffusion.load_file(tmp_path / "zmagic_demo_text_encoder.safetensors")
    known = set(told.flatten().tolist())
    assert set(kept[painter.KNOWN_WORDS].tolist()) == known
    table = painter.with_whole_vocabulary(kept)[painter.WORD_VECTORS]
    ours = made.text.state_dict()[painter.WORD_VECTORS].half()
    assert table.shape == ours.shape
    assert all(torch.equal(table[word], ours[word]) for word in known)
    assert table.any(1).sum() == len(known)


def test_words_and_picture_learn_from_one_loss(made):
    latents, told = (
        torch.randn(2 * diffusion.COPIES, 16, 16, 16),
        diffusion.tokens_of([PROMPT, "a man"])[:, None],
    )
    learning = painter.Painter()
    for branch in learning.unet.out.parameters():  # zero at first, and nothing behind it learns
        torch.nn.init.normal_(branch, std=0.1)
    for name, module in learning.unet.named_modules():
        if name.endswith("proj_out"):
            torch.nn.init.normal_(module.weight, std=0.1)
    diffusion.loss(learning, latents, told.expand(2, diffusion.SENTENCES, 77), 8).backward()
    table = learning.text.text_model.embeddings.token_embedding.weight.grad
    moved = set(table.any(1).nonzero().flatten().tolist())
    assert moved and moved <= set(told.flatten().tolist())
    assert all(p.grad.isfinite().all() for p in learning.unet.parameters() if p.grad is not None)


def test_the_sampler_draws_what_the_network_knows():
    """A network that knows numbers of deviation .5 exactly: samples have it, and their mean."""
    spread, mean = 0.5, 0.4

    def ideal(noisy, level, tokens):
        shares = diffusion.signal_shares()
        low = level.long().clamp(max=len(shares) - 2)
        part = level - low
        share = torch.lerp(shares[low], shares[low + 1], part).view(-1, 1, 1, 1)
        variance = share * spread**2 + 1.0 - share
        return (1.0 - share).sqrt() * (noisy - share.sqrt() * mean) / variance

    samples = diffusion.sampled(ideal, diffusion.tokens_of([""] * 8))
    assert samples.shape == (8, 16, 16, 16)
    assert samples.mean() == pytest.approx(mean, abs=0.03)
    assert samples.std() == pytest.approx(spread, rel=0.05)


def test_a_start_of_fewer_channels_paints_as_it_did_and_is_deaf(tmp_path, monkeypatch):
    """What the pack's network knows of its channels is kept; words say nothing to it yet."""
    monkeypatch.setattr("zmagic.lab.training.running.DEMO_MODELS", tmp_path)
    monkeypatch.setattr(diffusion, "DEMO_MODELS", tmp_path)
    few = {"in_channels": 4, "out_channels": 4, "context_dim": 64}
    with monkeypatch.context() as before:
        before.setattr(painter, "UNET_CONFIG", {**painter.UNET_CONFIG, **few})
        old = painter.empty_unet()
    for weights in old.parameters():  # no branch is zero, as after a training
        torch.nn.init.normal_(weights, std=0.02)
    run = diffusion.Run("unet", tmp_path, 1.0, out=tmp_path)
    run.write_weights(old.half().float())
    new = diffusion._start(run)
    x, level = torch.randn(2, 16, 16, 16), torch.tensor([100.0, 700.0])
    with torch.no_grad():
        expected = old(x[:, :4], level, context=torch.zeros(2, 1, 64))
        for prompt in (PROMPT, ""):
            found = new(x, level, diffusion.tokens_of([prompt]).expand(2, -1))
            torch.testing.assert_close(found[:, :4], expected)


class _Mean:
    """Says of a picture how bright it is."""

    def encoded(self, pictures):
        return pictures.mean((1, 2, 3), keepdim=True)


def test_every_copy_has_the_words_of_its_picture():
    """The loss takes the copies of a picture for neighbors, in batches of several, too."""
    count = diffusion.BATCH + 6
    shades = torch.linspace(0.2, 0.8, count)
    images = (shades.view(-1, 1, 1, 1) * 255.0).expand(count, 3, 16, 16).to(torch.uint8)
    none = torch.zeros(count)
    portraits = Portraits(images, none, none, None, none, ({},) * count)
    latents = diffusion.encoded(_Mean(), portraits).flatten()
    found = latents.view(count, diffusion.COPIES)
    # Light varies by a few percent; other pictures of the list are far brighter or darker.
    torch.testing.assert_close(found, shades[:, None].expand_as(found), rtol=0.2, atol=0.0)


def test_a_mean_that_is_wrong_costs_more_than_pixels_that_are():
    told = diffusion.tokens_of(["a man"]).expand(1, diffusion.SENTENCES, 77)
    latents = torch.zeros(diffusion.COPIES, 16, 16, 16)
    signs = torch.tensor([1.0, -1.0])[(torch.arange(16)[:, None] + torch.arange(16)) % 2]

    def cost(error):
        def painter(x, level, told):
            share = diffusion.signal_shares()[level].view(-1, 1, 1, 1)
            return x / (1.0 - share).sqrt() + error

        torch.manual_seed(0)
        return float(diffusion.loss(painter, latents, told, 8))

    assert cost(0.0) < 1e-9
    assert cost(0.1) > 20.0 * cost(0.1 * signs) > 0.0
