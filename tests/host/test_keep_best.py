"""Keep Best: which pictures are kept, without a gradient, and what is said of them."""

import json

import comfy.model_management
import pytest
import torch

from zmagic.guidance.conditions import Condition
from zmagic.guidance.energies import FaceIdentity
from zmagic.guidance.faces.location import FaceLocator
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
    assert seen == [(False, False, False)]
    loaded = [each.model for each in comfy.model_management.current_loaded_models]
    assert any(each is network.patcher for each in loaded)


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
