"""Keep Best: which pictures are kept, without a gradient, and what is said of them."""

import json

import comfy.model_management
import pytest
import torch

from zmagic.guidance.conditions import Condition
from zmagic.guidance.energies import FaceIdentity, ReferenceImage
from zmagic.guidance.faces.detections import Detection
from zmagic.guidance.faces.location import FaceLocator
from zmagic.guidance.live_regions import LiveRegion
from zmagic.host.networks import Network
from zmagic.nodes.keep_best_node import ZMagicKeepBest

from ..energies.small_networks import recognizer
from .test_notices import in_graph, prompt_server, sent

__all__ = ["prompt_server"]  # a fixture


def brightness(image, region=None):
    return image.flatten(1).mean(1)


def redness(image, region=None):
    return 1000.0 * image[:, 0].flatten(1).mean(1)


def batch():
    """Pictures of brightness .4, .1, .3, .28 of which the reddest is not the brightest."""
    pictures = torch.zeros(4, 8, 8, 3)
    for b, (bright, red) in enumerate(((0.4, 0.3), (0.1, 0.4), (0.3, 0.1), (0.28, 0.2))):
        pictures[b] = bright
        pictures[b, ..., 0] = red
    return pictures


def kept(conditions, images=None, node=ZMagicKeepBest, keep=2):
    with torch.inference_mode():
        images = batch() if images is None else images
        best, table = node.execute(images=images, conditions=conditions, keep=keep).args
    return images, best, json.loads(table)


def test_the_pictures_of_the_lowest_energies_are_kept_as_they_are(prompt_server):
    conditions = (Condition("Dark", brightness, start=0.9),)
    images, best, table = kept(conditions, node=in_graph(ZMagicKeepBest, "7"))
    expected = images.mean((1, 2, 3)).argsort()
    assert torch.equal(best, images[expected[:2]])
    assert [row["picture"] for row in table["pictures"]] == expected.tolist()
    assert table["weights"] == {"Dark": 1.0}
    energy = images[expected[0]].mean().item()
    assert table["pictures"][0]["energies"]["Dark"] == pytest.approx(energy, rel=1e-5)
    text = sent(prompt_server)[-1][1]
    assert text.startswith(f"1. picture {expected[0] + 1} of 4: Dark {energy:.3g}\n2. picture ")


class Left:
    """Finds the left half of a picture."""

    sought = "the left half"

    def __call__(self, image):
        masks = torch.zeros_like(image[:, 0])
        masks[..., : image.shape[-1] // 2] = 1.0
        return masks


def test_a_region_that_is_looked_for_in_the_picture_counts():
    target = torch.full((1, 3, 8, 8), 0.2)
    region = LiveRegion(Left(), 1, "Do this")
    conditions = (Condition("Alike", ReferenceImage(target), region=region),)
    images, best, _ = kept(conditions, keep=1)
    distances = (images[:, :, :4] - 0.2).square().mean((1, 2, 3))
    assert torch.equal(best[0], images[distances.argmin()])


def test_weights_decide_and_the_size_of_an_energy_does_not():
    def first(dark, red):
        conditions = (Condition("a", brightness, dark), Condition("b", redness, red))
        return kept(conditions)[2]["pictures"][0]["picture"]

    images = batch()
    assert first(1.0, 0.0) == images.mean((1, 2, 3)).argmin()
    assert first(0.0, 1.0) == images[..., 0].mean((1, 2)).argmin()
    assert first(1.0, 1e-3) == images.mean((1, 2, 3)).argmin()


def test_no_gradient_is_made_and_networks_of_the_host_are_loaded():
    own = recognizer()
    network = Network(own.network, "small")
    own = type(own)(network, own.preprocessing)
    pictures = torch.rand(3, 40, 40, 3)
    reference = own(pictures[1:2].movedim(-1, 1)[:, :, 4:36, 4:36].contiguous())[0].detach()
    seen = []

    class Watched(FaceIdentity):
        def __call__(self, image, region=None):
            energy = super().__call__(image, region)
            seen.append((torch.is_grad_enabled(), energy.requires_grad, image.is_inference()))
            return energy

    conditions = (Condition("Face", Watched(own, reference, FaceLocator())),)
    kept(conditions, pictures)
    assert set(seen) == {(False, False, False)}
    loaded = [each.model for each in comfy.model_management.current_loaded_models]
    assert any(each is network.patcher for each in loaded)


def test_a_batch_takes_the_memory_of_one_picture_and_the_host_is_asked_for_it(monkeypatch):
    own = recognizer()
    network = Network(own.network, "small")
    own, seen, asked = type(own)(network, own.preprocessing), [], []
    pictures = torch.rand(3, 40, 40, 3)
    reference = own(pictures[1:2].movedim(-1, 1)[:, :, 4:36, 4:36].contiguous())[0].detach()
    load = comfy.model_management.load_models_gpu

    def loaded(models, memory_required=0, **options):
        asked.append(memory_required)
        return load(models, memory_required, **options)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", loaded)

    class Watched(FaceIdentity):
        def __call__(self, image, region=None):
            seen.append(len(image))
            return super().__call__(image, region)

    conditions = (Condition("Face", Watched(own, reference, FaceLocator())),)
    kept(conditions, pictures)
    assert seen == [1, 1, 1]
    assert asked and all(size >= 40 * 40 * 3 * 4 for size in asked)
    assert max(asked) < 2 * min(asked)


def test_what_is_of_each_picture_stays_so():
    """References and regions in the order of the batch; the others see one picture at a time."""
    images = torch.rand(4, 8, 8, 3)
    rows = torch.zeros(4, 8, 8)
    for b in range(4):
        rows[b, b] = 1.0
    like = ReferenceImage(images[[0, 2, 1, 3]].movedim(-1, 1))

    def energies(name, condition):
        table = kept((condition,), images, keep=4)[2]["pictures"]
        by_picture = sorted(table, key=lambda row: row["picture"])
        return [row["energies"][name] for row in by_picture]

    found = energies("Like", Condition("Like", like))
    assert found[0] == found[3] == 0.0 and min(found[1:3]) > 0.0

    def bright(image, region=None):
        return (image.mean(1, keepdim=True) * region).flatten(1).sum(1)

    found = energies("Row", Condition("Row", bright, region=rows))
    expected = [images[b, b].mean(-1).sum().item() for b in range(4)]
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_face_that_is_not_found_is_told_of_its_picture(prompt_server):
    """Nor is it taken to be where it was in the picture before."""

    def detect(picture):
        found = [Detection(torch.tensor([0.1, 0.1, 0.5, 0.5]))]
        return found if picture.mean() > 0.3 else []

    own = recognizer()
    own = type(own)(Network(own.network, "small"), own.preprocessing)
    pictures = torch.rand(3, 40, 40, 3)
    pictures[1] *= 0.1
    reference = own(pictures[1:2].movedim(-1, 1)[:, :, 4:36, 4:36].contiguous())[0].detach()
    face = Condition("Face", FaceIdentity(own, reference, FaceLocator(detect=detect)))
    node = in_graph(ZMagicKeepBest, "7")
    together = kept((face,), pictures, node, keep=3)[2]["pictures"]
    said = sent(prompt_server)[-1][1]
    assert "picture 2 of 3: Face: no face was found\n" in said and "guided" not in said
    assert "picture 2 comes last: Face was not seen in it." in said
    assert together[-1] == {"picture": 1, "score": None, "energies": {"Face": None}}
    for row in together[:2]:
        b = row["picture"]
        alone = kept((face,), pictures[b : b + 1], keep=1)[2]["pictures"][0]
        assert row["energies"] == pytest.approx(alone["energies"], rel=1e-5)


class Bright(Left):
    """Finds what is brighter than a half."""

    sought = "what is bright"

    def __call__(self, image):
        return (image.mean(1) > 0.5).to(image)


def test_a_picture_without_the_region_is_not_kept_and_it_is_said(prompt_server):
    """The energy of an empty region is 0: better than that of any picture that has one."""
    images = torch.tensor([0.1, 0.8, 0.9]).view(3, 1, 1, 1).expand(3, 8, 8, 3)
    target = torch.full((1, 3, 8, 8), 0.6)
    bright = Condition("Alike", ReferenceImage(target), region=LiveRegion(Bright(), 1, "Do this"))
    _, best, table = kept((bright,), images, in_graph(ZMagicKeepBest, "7"), keep=1)
    assert torch.equal(best[0], images[1])
    assert [row["picture"] for row in table["pictures"]] == [1, 2, 0]
    said = sent(prompt_server)[-1][1]
    assert "picture 1 of 3: Alike: what is bright was not found.\nDo this" in said
    assert "picture 1 comes last: Alike was not seen in it." in said
    other = Condition("Dark", brightness)
    hidden = Condition("Alike", ReferenceImage(target), region=LiveRegion(Bright(), 1))
    _, best, _ = kept((hidden, other), images * 0.4, in_graph(ZMagicKeepBest, "7"), keep=1)
    assert torch.equal(best[0], images[0] * 0.4)
    assert "Alike was not seen in any picture: it does not count." in sent(prompt_server)[-1][1]


def test_what_is_seen_nowhere_is_no_reason_for_the_last_place(prompt_server):
    """One condition is about nothing in the batch, another about one picture, a third is broken."""
    images = torch.tensor([0.2, 0.6, 0.7]).view(3, 1, 1, 1).expand(3, 8, 8, 3)
    target = torch.full((1, 3, 8, 8), 0.6)
    nowhere = Condition("Nowhere", ReferenceImage(target), region=torch.zeros(1, 8, 8))
    bright = Condition("Alike", ReferenceImage(target), region=LiveRegion(Bright(), 1))
    broken = Condition("Broken", lambda image, region: 1 / brightness(0.65 - image).clamp_min(0))
    conditions = (nowhere, bright, broken)
    _, _, table = kept(conditions, images, in_graph(ZMagicKeepBest, "7"), keep=3)
    assert [row["picture"] for row in table["pictures"]] == [1, 0, 2]
    said = sent(prompt_server)[-1][1]
    assert "Nowhere was not seen in any picture: it does not count." in said
    assert "picture 1 comes last: Alike was not seen in it." in said
    assert "picture 3 has an energy that is no number: it comes last." in said
    assert "Nowhere was not seen in it" not in said


@pytest.mark.parametrize(
    ("conditions", "keep", "words"),
    [
        ((Condition("a", brightness),), 9, "'keep' is 9, the batch has 4"),
        (
            (Condition("a", lambda image, region=None: brightness(image).log()),),
            1,
            "an energy that is no number",
        ),
    ],
)
def test_what_is_not_as_asked_is_said(prompt_server, conditions, keep, words):
    images = batch()
    images[2] = 0.0
    _, best, table = kept(conditions, images, in_graph(ZMagicKeepBest, "7"), keep)
    assert words in sent(prompt_server)[-1][1]
    assert len(best) == min(keep, 4) and len(table["pictures"]) == 4
    if keep == 1:
        assert table["pictures"][-1] == {"picture": 2, "score": None, "energies": {"a": None}}


def test_without_a_condition_that_counts_there_is_no_best():
    with pytest.raises(ValueError, match="^Keep Best: raise the weight of a condition"):
        kept((Condition("a", brightness, 0.0),))


def test_an_error_of_a_condition_has_its_name():
    condition = Condition("Part", brightness, region=torch.ones(3, 8, 8))
    with pytest.raises(ValueError, match="Part: region has 3 masks, expected 1 or the batch"):
        kept((condition,))


def test_it_can_be_cancelled():
    def cancels(image, region=None):
        comfy.model_management.interrupt_current_processing()
        return brightness(image)

    conditions = (Condition("a", cancels), Condition("b", brightness))
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        kept(conditions)
