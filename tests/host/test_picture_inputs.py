"""Pictures and masks as other nodes hand them on: of every precision, scale, size and channels."""

import pytest
import torch

from zmagic.nodes.picture_energy_nodes import ZMagicColorPalette, ZMagicReferenceImage, ZMagicSketch
from zmagic.nodes.picture_inputs import masks, pictures, pictures_and_mask

COMMON = {"weight": 1.0, "start": 0.0, "end": 1.0}
NODES = {
    ZMagicColorPalette: {"colors": "", "lightness": 0.5, **COMMON},
    ZMagicSketch: {"reference_is": "photograph", "line_width": 0.02, **COMMON},
    ZMagicReferenceImage: {"blur": 0.02, **COMMON},
}


def picture(batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 40, 30, 3)


def energy(node, image: torch.Tensor, **inputs) -> torch.Tensor:
    with torch.inference_mode():
        (chain,) = node.execute(**NODES[node], **inputs).args
    return chain[-1].energy(image)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision_becomes_single(dtype):
    given = picture(2)
    seen = pictures(given.to(dtype))
    assert seen.dtype == torch.float32 and seen.shape == (2, 3, 40, 30)
    torch.testing.assert_close(seen, given.movedim(-1, 1), atol=4e-3, rtol=0.0)
    mask = masks(given[..., 0].to(dtype))
    assert mask.dtype == torch.float32 and mask.shape == (2, 40, 30)


def test_gray_and_overshooting_pictures_are_taken_as_meant():
    gray = picture()[..., :1]
    assert torch.equal(pictures(gray), gray.movedim(-1, 1).expand(-1, 3, -1, -1))
    bright = picture() * 1.3 - 0.1
    assert torch.equal(pictures(bright), bright.clamp(0.0, 1.0).movedim(-1, 1))
    assert masks(torch.ones(8, 8, dtype=torch.bool)).shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (picture() * 255.0, "values from .* to 25.*, expected 0 to 1"),
        (picture() * 2.0 - 1.0, "values from -.* expected 0 to 1"),
        ((picture() * 255).to(torch.uint8), "whole numbers \\(uint8\\)"),
        (picture().log(), "values from -"),
        (picture() * torch.nan, "not numbers"),
        (picture() * torch.inf, "not numbers"),
        (picture()[:0], "is empty"),
        (picture()[:, :0], "is empty"),
        (picture()[..., :2], "must be an RGB image .* \\[1, 40, 30, 2\\]"),
        (picture()[0], "must be an RGB image .* \\[40, 30, 3\\]"),
        (picture().to(torch.complex64), "complex"),
        ("a cat \udc80", "must be an RGB image .* got 'a cat .udc80'"),
        (None, "must be an RGB image .* got None"),
    ],
)
def test_other_pictures_are_refused_in_a_sentence(image, message):
    with pytest.raises(ValueError, match=f"^.*{message}") as refused:
        pictures(image, "photo")
    assert "'photo'" in str(refused.value)
    str(refused.value).encode()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(1, 1, 8, 8), "must be a mask"),
        (torch.full((1, 8, 8), 255.0), "values from 255"),
        (torch.full((1, 8, 8), 255, dtype=torch.uint8), "values from 255"),
        (torch.full((8, 8), torch.nan), "not numbers"),
        (torch.ones(1, 0, 8), "is empty"),
        ([1, 2], "must be a mask"),
    ],
)
def test_other_masks_are_refused_in_a_sentence(mask, message):
    with pytest.raises(ValueError, match=f"^.*{message}"):
        masks(mask)


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("hidden_by", ["alpha", "mask"])
def test_what_is_hidden_of_a_reference_does_not_count(node, hidden_by):
    """A cut-out on whatever colors lie under its transparency."""
    subject, counts = picture(), torch.zeros(1, 40, 30)
    counts[:, 8:30, 6:24] = 1.0
    image = torch.rand(2, 3, 80, 60)

    def value(hidden: torch.Tensor) -> torch.Tensor:
        reference = torch.where(counts[..., None] > 0.0, subject, hidden)
        if hidden_by == "mask":
            return energy(node, image, reference=reference, reference_mask=counts)
        return energy(node, image, reference=torch.cat((reference, counts[..., None]), -1))

    first, second = value(torch.zeros_like(subject)), value(torch.rand_like(subject))
    assert first.isfinite().all()
    torch.testing.assert_close(first, second, atol=1e-6, rtol=1e-5)
    everything = energy(node, image, reference=subject)
    assert not torch.allclose(first, everything)
    opaque = torch.cat((subject, torch.ones(1, 40, 30, 1)), -1)
    assert torch.equal(energy(node, image, reference=opaque), everything)


def test_palette_of_a_cut_out_is_its_own():
    """Red on black, with the black transparent: a red picture is right, a black one is not."""
    reference = torch.zeros(1, 32, 32, 4)
    reference[:, 8:24, 8:24] = torch.tensor([1.0, 0.0, 0.0, 1.0])
    red = torch.zeros(1, 3, 32, 32)
    red[:, 0] = 1.0
    assert energy(ZMagicColorPalette, red, reference=reference).item() < 1e-6
    assert energy(ZMagicColorPalette, 0.0 * red, reference=reference).item() > 0.1


def test_a_mask_of_another_size_or_for_all_pictures_fits():
    values, counts = pictures_and_mask(picture(2), torch.ones(20, 15))
    assert counts is None and values.shape == (2, 3, 40, 30)
    half = torch.zeros(1, 20, 15)
    half[:, :10] = 1.0
    _, counts = pictures_and_mask(picture(2), half)
    assert counts.shape == (2, 1, 40, 30) and counts[:, :, :18].eq(1.0).all()


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        (picture(), torch.zeros(1, 64, 64), "'reference_mask' leaves nothing .*\n.*Invert Mask"),
        (torch.zeros(2, 8, 8, 4), None, "picture 1 of 2 at 'reference' is transparent all over"),
        (picture(3), torch.ones(2, 40, 30), "'reference_mask' holds 2 masks, expected 1 or .* 3"),
    ],
)
def test_references_of_which_nothing_counts(image, mask, message):
    with pytest.raises(ValueError, match=f"(?s)^{message}"):
        pictures(image, mask=mask)


def test_networks_see_gray_where_nothing_counts():
    image = torch.cat((picture(), torch.zeros(1, 40, 30, 1)), -1)
    image[:, :20, :, 3] = 1.0
    seen = pictures(image)
    assert torch.equal(seen[:, :, :20], image[:, :20, :, :3].movedim(-1, 1))
    assert seen[:, :, 20:].eq(0.5).all()
