"""How the demo models are trained: splits, variation, the loop that may be stopped, figures."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from zmagic.guidance.networks import load_onnx
from zmagic.guidance.networks.onnx_header import read_onnx_header
from zmagic.lab.training import captions, card, clip, codes, likeness, metrics
from zmagic.lab.training.data import CLASSES, MIRRORED, Variation, read_portraits, split_of, varied
from zmagic.lab.training.landmarks import LandmarkNetwork
from zmagic.lab.training.onnx_export import write_onnx
from zmagic.lab.training.parser import Parser, class_weights
from zmagic.lab.training.running import PACK, Run
from zmagic.lab.training.taesd import LATENT_CHANNELS, Autoencoder
from zmagic.lab.training.trainer import Trainer

SPLITS = ("train", "validation", "test")

# A face whose points are named by where they are: left of the middle, right of it, or on it.
POINTS_5 = torch.tensor([[[0.4, 0.4], [0.6, 0.4], [0.5, 0.5], [0.45, 0.6], [0.55, 0.6]]])

LABEL = {
    "caption": "a photo of an old asian man with short black hair and a beard",
    "gender": "man",
    "race": "asian",
    "old": True,
    "hair": "black",
    "style": "short",
    "beard": True,
    "beard_style": "full",
    "smile": False,
    "cloth": "red",
    "bg": "blue",
}


@pytest.fixture
def folder(tmp_path):
    """Twenty people, two pictures of each, four of them with glasses and hats in their masks."""
    lines = []
    for identity in range(20):
        for picture in range(2):
            name = f"{identity:05d}_{picture}"
            Image.new("RGB", (16, 16), (identity, picture, 0)).save(tmp_path / f"{name}.jpg")
            Image.fromarray(np.tile(np.arange(10, dtype=np.uint8), (10, 1))).save(
                tmp_path / f"{name}_mask.png"
            )
            points = POINTS_5[0].tolist()
            lines.append(LABEL | {"id": name, "identity": identity, "landmarks": points})
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return tmp_path


def test_nobody_is_in_two_splits(folder):
    people = [{label["identity"] for label in read_portraits(folder, s).labels} for s in SPLITS]
    assert not people[0] & people[1] and not people[0] & people[2] and not people[1] & people[2]
    assert set.union(*people) == set(range(20))
    assert [len(p) for p in people] == [16, 2, 2]
    assert {split_of(identity) for identity in range(1000)} == set(SPLITS)


def test_people_are_numbered_without_gaps_and_masks_know_eight_classes(folder):
    portraits = read_portraits(folder, "train")
    assert portraits.people.unique().tolist() == list(range(16))
    assert portraits.people.bincount().tolist() == [2] * 16
    assert portraits.classes.max() < len(CLASSES)
    assert portraits.classes[0, 0, 8] == CLASSES.index("skin")  # glasses
    assert portraits.points68 is None
    with pytest.raises(ValueError, match="labels.jsonl"):
        read_portraits(folder / "elsewhere", "train")
    with pytest.raises(ValueError, match="no pictures of the split else"):
        read_portraits(folder, "else")


def test_networks_that_guide_see_soft_and_noisy_pictures_too():
    """Half of them are as they were, and none is for an evaluator."""
    torch.manual_seed(0)
    images = torch.zeros(400, 3, 16, 16)
    images[..., 8:] = 1.0
    still = Variation(mirror=False)
    seen, _, _ = varied(images, still.toward(evaluator=False))
    changed = (seen - images).abs().amax((1, 2, 3))
    assert 0.4 < (changed > 1e-4).float().mean() < 0.6
    edge = seen[:, :, :, 7:9].mean((1, 2)).diff(dim=1)[:, 0]  # 1 where it is sharp
    assert edge.max() > 0.99 and 0.1 < edge.min() < 0.3
    finished, _, _ = varied(images, still.toward(evaluator=True))
    torch.testing.assert_close(finished, images)


@pytest.mark.parametrize("count", MIRRORED)
def test_mirroring_twice_is_nothing(count):
    order = torch.tensor(MIRRORED[count])
    assert order[order].tolist() == list(range(count))


def test_points_and_classes_follow_the_picture():
    """Bright spots at the points are found where the moved points say."""
    side, points = 64, (torch.randint(16, 48, (32, 5, 2)) + 0.5) / 64
    images = torch.zeros(32, 3, side, side)
    column, row = (points * side).long().unbind(2)
    for place in range(5):
        images[torch.arange(32), :, row[:, place], column[:, place]] = 1.0
    classes = (images[:, 0] > 0).to(torch.uint8)
    how = Variation(scale=0.2, shift=0.1, roll=0.3)
    moved, found, labels = varied(images, how, points, classes)
    assert (moved.flip(3) - moved).abs().max() > 0.0 and labels.dtype == torch.uint8
    value = nn.functional.grid_sample(
        nn.functional.max_pool2d(moved, 3, 1, 1), (found * 2.0 - 1.0)[:, None], align_corners=False
    )
    assert value.min() > 0.2


def test_mirrored_faces_keep_left_left():
    torch.manual_seed(0)
    _, points, _ = varied(torch.zeros(16, 3, 8, 8), Variation(), POINTS_5.expand(16, -1, -1))
    torch.testing.assert_close(points, POINTS_5.expand(16, -1, -1))


def toy(run: Run) -> nn.Module:
    run.seeded()
    module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    trainer = Trainer(run, module, 1e-2)

    def loss():
        x = torch.randn(16, 4)
        return (trainer.module(x).float()[:, 0] - x.sum(1)).square().mean()

    return trainer.train(loss)


class _Interrupted(Exception):
    """Stands for a machine that goes away."""


def test_an_interrupted_run_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    whole = Run("toy", tmp_path, 1.0, steps=30, work=tmp_path / "whole")
    parts = dataclasses.replace(whole, work=tmp_path / "parts")
    expected = toy(whole).state_dict()

    monkeypatch.setattr("zmagic.lab.training.trainer.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    stepped = Trainer._stepped

    def going_away(trainer, loss):
        if trainer.step == 12:
            raise _Interrupted
        return stepped(trainer, loss)

    monkeypatch.setattr(Trainer, "_stepped", going_away)
    with pytest.raises(_Interrupted):
        toy(parts)
    monkeypatch.setattr(Trainer, "_stepped", stepped)
    torch.manual_seed(99)
    again = toy(parts).state_dict()
    assert all(torch.equal(again[key], expected[key]) for key in expected)
    assert not list(parts.checkpoint.parent.glob(".*"))


def test_training_learns_and_a_finished_run_stays(tmp_path):
    run = Run("toy", tmp_path, 1.0, steps=300, work=tmp_path / "work")
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(5))
    network = toy(run)
    error = (network(x)[:, 0] - x.sum(1)).square().mean() / x.sum(1).square().mean()
    assert error < 0.2
    again = toy(run)
    assert torch.equal(again(x), network(x))


def test_a_larger_batch_takes_larger_steps(tmp_path):
    run = Run("toy", tmp_path, 1.0, steps=1, work=tmp_path / "work", rate_factor=2.0)
    assert Trainer(run, nn.Linear(2, 2), 1e-2).learning_rate == pytest.approx(2e-2)


def test_weights_are_halved_except_statistics(tmp_path):
    from safetensors.torch import load_file

    run = Run("toy", tmp_path, 1.0, out=tmp_path)
    weights = load_file(run.write_weights(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))))
    assert weights["0.weight"].dtype == torch.float16
    assert weights["1.running_var"].dtype == torch.float32
    assert not any(key.endswith("num_batches_tracked") for key in weights)


def test_weights_for_fewer_channels_are_those_of_the_first_ones(tmp_path, monkeypatch):
    monkeypatch.setattr("zmagic.lab.training.running.DEMO_MODELS", tmp_path)
    run = Run("toy", tmp_path, 1.0, out=tmp_path)
    few, many = nn.Conv2d(2, 3, 3), nn.Conv2d(5, 4, 3)
    run.write_weights(few.half().float())
    run.started(many)
    x = torch.randn(1, 5, 8, 8)
    torch.testing.assert_close(many(x)[:, :3], few(x[:, :2]))
    other = nn.Conv2d(5, 4, 1)
    before = {key: value.clone() for key, value in other.state_dict().items()}
    run.started(other)
    assert torch.equal(other.weight, before["weight"])


def test_area_under_curve_by_counting():
    positive, negative = torch.tensor([0.9, 0.5, 0.5, 0.1]), torch.tensor([0.5, 0.2, 0.3])
    wins = [(p > n) + 0.5 * (p == n) for p in positive.tolist() for n in negative.tolist()]
    assert metrics.area_under_curve(positive, negative) == pytest.approx(sum(wins) / len(wins))
    assert metrics.area_under_curve(torch.ones(3), torch.zeros(5)) == 1.0
    assert (
        metrics.true_accept_rate(torch.tensor([0.2, 0.8]), torch.linspace(0, 0.5, 101), 0.01) == 0.5
    )


def test_verification_pairs():
    embeddings = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    same, different = metrics.verification_scores(embeddings, torch.tensor([4, 4, 7]))
    assert same.tolist() == [1.0] and different.tolist() == [0.0, 0.0]


def test_intersection_over_union_by_counting():
    predicted, actual = torch.randint(3, (2, 50)), torch.randint(3, (2, 50))
    overlap = metrics.intersection_over_union(metrics.confusion(predicted, actual, 4))
    for number in range(3):
        both = ((predicted == number) & (actual == number)).sum()
        either = ((predicted == number) | (actual == number)).sum()
        assert overlap[number] == pytest.approx(float(both / either))
    assert overlap[3].isnan()


def test_frechet_distance_does_not_change_under_rotation():
    generator = torch.Generator().manual_seed(4)
    one, two = torch.randn(2, 50, 4, generator=generator, dtype=torch.float64)
    two = two @ torch.randn(4, 4, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q
    rotated = metrics.frechet_distance(one @ rotation, two @ rotation)
    assert rotated == pytest.approx(metrics.frechet_distance(one, two))


def test_frechet_distance_of_known_distributions():
    torch.manual_seed(0)
    first = torch.randn(4000, 3, dtype=torch.float64)
    assert metrics.frechet_distance(first, first) == pytest.approx(0.0, abs=1e-9)
    assert metrics.frechet_distance(first, first + 2.0) == pytest.approx(12.0)
    # Distributions of the same shape: the squared differences of the standard deviations.
    wide = 3.0 * first - 2.0 * first.mean(0)
    spread = float(first.var(0).sum())
    assert metrics.frechet_distance(first, wide) == pytest.approx(4.0 * spread)
    # Covariances that do not commute, against the root of the product by eigenvalues.
    second = first @ torch.randn(3, 3, dtype=torch.float64)
    a, b = (np.cov(x.numpy().T) for x in (first, second))
    root = np.sqrt(np.linalg.eigvals(a @ b).astype(complex)).sum().real
    shift = ((first.mean(0) - second.mean(0)) ** 2).sum().item()
    expected = shift + np.trace(a) + np.trace(b) - 2.0 * root
    assert metrics.frechet_distance(first, second) == pytest.approx(expected)


def test_psnr_and_interocular_error():
    picture = torch.zeros(1, 3, 4, 4)
    assert metrics.psnr(picture, picture + 0.1).item() == pytest.approx(20.0, abs=1e-4)
    other = picture.clone()
    other[..., 0, 0] = 0.1
    where = torch.zeros(1, 4, 4, dtype=torch.bool)
    where[0, 0, 0] = True
    assert metrics.psnr(picture, other, where).item() == pytest.approx(20.0, abs=1e-4)
    points = torch.zeros(1, 68, 2)
    points[0, 45, 0] = 0.5  # the other corner of the eyes
    found = points + torch.tensor([0.03, 0.04])
    assert metrics.interocular_error(found, points).item() == pytest.approx(0.1)


def test_captions_tell_what_is_there_and_questions_know_their_answers():
    told = {captions.some_of(LABEL) for _ in range(300)}
    assert LABEL["caption"] in told and len(told) > 50
    assert not any("  " in text or text.endswith((" ", ",")) for text in told)
    assert any("without glasses" in text for text in told)
    assert any("without a hat" in text for text in told)
    for wrong in ("blond", "woman", "bald", "without a beard", "wearing glasses", "wearing a"):
        assert not any(wrong in text for text in told), wrong
    for question in captions.QUESTIONS.values():
        assert question.answer(LABEL) in question.prompts
    bald = LABEL | {"style": "bald"}
    assert captions.QUESTIONS["hair color"].answer(bald) is None


def test_only_pictures_that_have_an_answer_are_asked():
    questions = list(captions.QUESTIONS.values())
    bald = LABEL | {"style": "bald"}
    sure = torch.full((2, len(clip.PROMPTS)), -20.0)
    first = 0
    for question in questions:
        for row, label in enumerate((LABEL, bald)):
            answer = question.answer(label)
            if answer is not None:
                sure[row, first + list(question.prompts).index(answer)] = 20.0
        first += len(question.prompts)
    assert clip.asked(sure, clip.answers_of([LABEL, bald])) < 1e-6
    undecided = clip.asked(torch.zeros_like(sure), clip.answers_of([LABEL, bald]))
    chances = [len(question.prompts) for question in questions]
    assert undecided == pytest.approx(torch.tensor(chances).log().mean().item())
    # Nobody in this batch shows hair: its question costs nothing and no gradient is lost.
    logits = torch.zeros(1, len(clip.PROMPTS), requires_grad=True)
    clip.asked(logits, clip.answers_of([bald])).backward()
    hair = len(captions.QUESTIONS["hair color"].prompts)
    assert torch.isfinite(logits.grad).all() and (logits.grad[:, :hair] == 0.0).all()
    assert (logits.grad[:, hair:] != 0.0).all()


def test_a_latent_is_a_coarse_copy_and_the_details_that_it_lacks():
    with Image.open(PACK / "demo_models" / "woman.jpg") as file:
        picture = torch.from_numpy(np.array(file)).movedim(2, 0)[None] / 255.0
    known = codes.Codes.read()
    rows = known.components.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-4, rtol=0.0)
    latent = known.encoded(picture)
    assert latent.shape == (1, LATENT_CHANNELS, 16, 16)
    coarse = known.coarse.encoded(picture)
    assert torch.equal(latent[:, : coarse.shape[1]], coarse)
    details = latent[:, coarse.shape[1] :]
    assert 0.5 < details.std() / codes.CHANNEL_SPREAD[-1] < 1.5
    soft = torch.cat((coarse, torch.zeros_like(details)), 1)
    torch.testing.assert_close(known.decoded(soft), known.coarse.decoded(coarse).clamp(0.0, 1.0))
    better = metrics.psnr(known.decoded(latent), picture) - metrics.psnr(
        known.decoded(soft), picture
    )
    assert better > 1.0


def test_details_are_the_principal_components_of_what_is_lacking(folder, monkeypatch):
    """Where every coarse copy is plain gray, one pattern of all portraits is found."""

    class Gray:
        taesd_decoder = codes.autoencoder_from(codes.load_file(codes.COARSE)).taesd_decoder

        def eval(self):
            return self

        def encoded(self, pictures):
            return pictures[:, :1, ::8, ::8]

        def decoded(self, latents):
            return torch.full((len(latents), 3, 64, 64), 0.5)

    monkeypatch.setattr(codes, "autoencoder_from", lambda weights: Gray())
    portraits = read_portraits(folder, "train")
    torch.manual_seed(0)
    pattern = torch.randn(3, 8, 8)
    strength = 0.1 * torch.randn(len(portraits), 1, 1, 1)
    shown = 0.5 + strength * pattern.repeat(1, 8, 8)
    images = (shown.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
    components, spread = codes.principal(dataclasses.replace(portraits, images=images))
    cosine = (components[0] * pattern).sum() / pattern.norm()
    assert cosine.abs() > 0.99
    assert spread[0] > 20.0 * spread[1] and (spread.diff() <= 0.0).all()


def test_autoencoder_has_the_layout_of_its_weights():
    from safetensors.torch import load_file

    from zmagic.lab.training.running import DEMO_MODELS

    weights = load_file(DEMO_MODELS / "zmagic_demo_autoencoder.safetensors")
    channels = weights["taesd_decoder.1.weight"].shape[1]
    network = Autoencoder(channels).state_dict()
    assert network.keys() == {key for key in weights if not key.startswith("vae_")}
    assert all(network[key].shape == weights[key].shape for key in network)


@pytest.mark.parametrize("network, side", [(Parser((8, 8, 8, 8)), 32), (LandmarkNetwork(), 96)])
def test_networks_pass_through_onnx_with_their_gradients(tmp_path, network, side):
    network.eval()
    write_onnx(tmp_path / "network.onnx", network, side, "result")
    header = read_onnx_header(tmp_path / "network.onnx")
    assert header.output[1:] == tuple(network(torch.zeros(1, 3, side, side)).shape[1:])
    again = load_onnx(tmp_path / "network.onnx")
    x = torch.rand(2, 3, side, side, requires_grad=True)
    (result,) = again(x)
    torch.testing.assert_close(result, network(x), rtol=1e-3, atol=1e-4)
    weight = torch.randn_like(result)
    found, expected = (
        torch.autograd.grad((value * weight).sum(), x)[0] for value in (result, network(x))
    )
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-4)


def test_nearest_pictures_are_found_mirrored_too():
    known = torch.rand(6, 3, 32, 32)
    pictures = known[[4, 1]].repeat_interleave(2, 2).repeat_interleave(2, 3)
    distances, places = likeness.nearest(pictures + 0.01, known, 2)
    assert places[:, 0].tolist() == [4, 1]
    torch.testing.assert_close(distances[:, 0], torch.full((2,), 0.01), atol=1e-4, rtol=0.01)
    assert (distances[:, 1] > 0.1).all()


def test_the_model_card_says_what_the_reports_say():
    text = card.CARD.read_text(encoding="utf-8")
    assert card.with_table(text) == text, "run 'python -m lab.training.card'"
    with pytest.raises(ValueError, match="expected the lines"):
        card.with_table("no marks")


def test_small_classes_weigh_more(folder):
    portraits = read_portraits(folder, "train")
    classes = torch.zeros_like(portraits.classes)
    classes[..., :1] = CLASSES.index("eyes")  # a tenth of each picture
    weights = class_weights(dataclasses.replace(portraits, classes=classes))
    assert weights.mean().item() == pytest.approx(1.0)
    ratio = weights[CLASSES.index("eyes")] / weights[CLASSES.index("background")]
    assert ratio.item() == pytest.approx(3.0)
