"""Scores of preference models against their published form, and where an energy stops pulling."""

import pytest
import torch
from torch import Tensor, nn

from zmagic.guidance.energies import Preference
from zmagic.guidance.energies.preference import Scores, aesthetic, for_a_prompt, of_opposites
from zmagic.guidance.pictures.preprocessing import Preprocessing

from .derivatives import gradient

WIDTH = 12
AS_IT_IS = Preprocessing((2, 2))


class Colors(nn.Module):
    """A network whose embedding is the picture's numbers: every embedding has a picture."""

    def forward(self, image: Tensor) -> Tensor:
        return image.flatten(1)


def energy_of(scores: Scores) -> Preference:
    return Preference(Colors(), AS_IT_IS, scores)


def pictures(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 2, 2)


def head(*widths: int) -> nn.Sequential:
    """A published head: linear layers, dropout between the first ones, no activation."""
    layers = [nn.Linear(*pair) for pair in zip(widths, widths[1:], strict=False)]
    dropouts = [nn.Dropout(0.2) for _ in layers[:3]]
    pairs = [each for pair in zip(layers, dropouts, strict=False) for each in pair]
    return nn.Sequential(*pairs, *layers[len(dropouts) :]).eval()


def layers_of(network: nn.Module) -> list[tuple[Tensor, Tensor]]:
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    return [(layer.weight.data, layer.bias.data) for layer in linear]


@pytest.mark.parametrize("widths", [(WIDTH, 1), (WIDTH, 64, 32, 16, 8, 1)])
def test_an_aesthetic_score_is_what_the_layers_compute(widths):
    network, image = head(*widths), pictures()
    with torch.no_grad():
        expected = network(nn.functional.normalize(image.flatten(1), dim=1))
    found = energy_of(aesthetic(layers_of(network))).scores(image)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_score_for_a_prompt_is_the_cosine_in_hundredths():
    text, image = torch.randn(1, WIDTH), pictures()
    expected = 100.0 * torch.cosine_similarity(image.flatten(1), text)
    found = energy_of(for_a_prompt(text, 100.0)).scores(image)[:, 0]
    torch.testing.assert_close(found, expected)


def test_opposites_are_weighed_as_by_a_softmax_of_their_logits():
    good, bad, image = torch.randn(2, WIDTH), torch.randn(2, WIDTH), pictures()
    energy = energy_of(of_opposites(good, bad, 10.0))
    directions = nn.functional.normalize(image.flatten(1), dim=1)
    logits = [10.0 * directions @ nn.functional.normalize(each, dim=1).T for each in (good, bad)]
    expected = torch.stack(logits).softmax(0)[0]  # [B, K]
    torch.testing.assert_close(energy.scores(image).sigmoid(), expected)
    torch.testing.assert_close(energy(image), -expected.log().mean(1))


def test_the_energy_is_what_a_score_lacks_and_nothing_is_gained_above_the_top():
    weights = torch.eye(WIDTH)[:1]
    image = torch.full((1, 3, 2, 2), 0.5)
    score = energy_of(Scores(weights, torch.zeros(1), 0.0)).scores(image)
    pulls = []
    for above in (-20.0, -1.0, 0.0, 20.0):
        energy = energy_of(Scores(weights, above - score[0], 0.0))
        if above == -20.0:
            torch.testing.assert_close(energy(image), torch.tensor([20.0]), rtol=1e-6, atol=1e-6)
        assert energy(image) > 0.0
        pulls.append(gradient(energy, image).abs().sum().item())
    assert pulls == sorted(pulls, reverse=True) and pulls[-1] < 1e-8 * pulls[0]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "expected at least one layer"),
        ([(torch.ones(2, 3), torch.ones(2))], "expected a head with one output, got 2"),
        (
            [(torch.ones(2, 3), torch.ones(2)), (torch.ones(1, 4), torch.ones(1))],
            "takes 4 numbers, the one before it makes 2",
        ),
    ],
)
def test_other_layers_are_no_head(layers, message):
    with pytest.raises(ValueError, match=message):
        aesthetic(layers)
