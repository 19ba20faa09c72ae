"""Regions that follow the picture: when they look, what they keep, and what they say."""

import pytest
import torch
from torch import Tensor

from zmagic.guidance import PRESETS, GuidedRun, NoiseLevel, Schedule
from zmagic.guidance.conditions import Condition, begin_run, begin_step, region_at, reports
from zmagic.guidance.energies import ColorPalette
from zmagic.guidance.live_regions import LiveRegion


class Bright:
    """Finds what is bright."""

    sought = "what is bright"

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self, image: Tensor) -> Tensor:
        self.looks += len(image)
        return (image.mean(1) > 0.5).to(image)


def picture(column: int | None) -> Tensor:
    """A dark picture ``[1, 3, 8, 8]`` with a bright column, or none."""
    image = torch.full((1, 3, 8, 8), 0.1)
    if column is not None:
        image[..., column] = 0.9
    return image


def conditions(finder: Bright, every: int = 2, count: int = 1) -> tuple[Condition, ...]:
    region, energy = LiveRegion(finder, every, "Do this"), ColorPalette(None, torch.rand(2, 3))
    return begin_run(Condition(f"c{i}", energy, region=region) for i in range(count))


def seen(condition: Condition, image: Tensor) -> list[int]:
    """The columns of the region of the first picture, after a look at ``image``."""
    return region_at(condition, image)[0, 0].amax(0).nonzero().flatten().tolist()


def test_a_region_follows_every_few_steps_and_is_fixed_within_one():
    finder = Bright()
    (condition,) = conditions(finder, every=2)
    for step, column, expected in ((0, 3, 3), (1, 4, 3), (2, 5, 5), (3, 6, 5), (None, 7, 7)):
        begin_step([condition], step)
        assert seen(condition, picture(column)) == [expected]
        assert seen(condition, picture(0)) == [expected]  # another point of the same step
    assert finder.looks == 3
    assert reports([condition], "notes") == ["c0: what is bright was found in 3 of 3 looks"]


def test_a_look_that_ran_out_of_memory_is_made_again_in_the_same_step():
    finder = Bright()
    (condition,) = conditions(finder, every=5)
    for step in (0, 5):
        short = [RuntimeError("MPS backend out of memory")]

        def sometimes(image: Tensor, short=short) -> Tensor:
            if short:
                raise short.pop()
            return finder(image)

        sometimes.sought = finder.sought
        condition.region.finder = sometimes
        begin_step([condition], step)
        with pytest.raises(RuntimeError, match="out of memory"):
            seen(condition, picture(step + 1))
        assert seen(condition, picture(step + 1)) == [step + 1]


def test_what_is_not_there_yet_is_looked_for_in_every_step_and_later_kept():
    finder = Bright()
    (condition,) = conditions(finder, every=3)
    for step, column, expected in ((0, None, []), (1, None, []), (2, 4, [4]), (4, None, [4])):
        begin_step([condition], step)
        assert seen(condition, picture(column)) == expected
    assert finder.looks == 4  # at step 4 all are due: three steps after the last look at all
    assert reports([condition], "warnings") == []


def test_each_picture_of_a_batch_has_its_own_and_is_told_apart():
    (condition,) = conditions(Bright(), every=5)
    both = torch.cat((picture(2), picture(None)))
    begin_step([condition], 0)
    masks = region_at(condition, both)
    assert masks.shape == (2, 1, 8, 8) and masks[0].any() and not masks[1].any()
    begin_step([condition], 1)
    region_at(condition, torch.cat((picture(6), picture(None))))
    (warning,) = reports([condition], "warnings")
    assert warning.startswith(
        "c0: what is bright was not found in any of 2 looks at picture 2 of 2, so that the"
    )
    assert warning.endswith("Do this")


def test_conditions_that_share_a_region_look_once():
    finder = Bright()
    shared = conditions(finder, count=3)
    begin_step(shared, 0)
    assert all(seen(condition, picture(3)) == [3] for condition in shared)
    assert finder.looks == 1


def test_runs_do_not_share_what_they_saw():
    finder = Bright()
    condition = Condition("c", ColorPalette(None, torch.rand(2, 3)), region=LiveRegion(finder, 9))
    for column in (2, 5):
        (begun,) = begin_run([condition])
        begin_step([begun], 0)
        assert seen(begun, picture(column)) == [column]
    assert seen(condition, picture(1)) == [1] and seen(condition, picture(4)) == [4]


def test_a_region_fits_a_picture_of_another_resolution():
    (condition,) = conditions(Bright())
    begin_step([condition], 0)
    region_at(condition, picture(3))
    large = region_at(condition, torch.zeros(1, 3, 16, 16))
    assert large.shape == (1, 1, 16, 16) and (large[..., 6:8] > 0.5).all()


def test_a_finder_that_fails_does_not_end_the_run():
    def broken(image: Tensor) -> Tensor:
        raise RuntimeError("no weights")

    broken.sought = "a hat"
    region = LiveRegion(broken)
    (condition,) = begin_run([Condition("c", ColorPalette(None, torch.rand(2, 3)), region=region)])
    begin_step([condition], 0)
    assert not region_at(condition, picture(3)).any()
    assert (
        "looking for a hat failed (RuntimeError: no weights)" in reports([condition], "warnings")[0]
    )


def test_steps_are_counted_from_one():
    with pytest.raises(ValueError, match="every must be >= 1, got 0"):
        LiveRegion(Bright(), 0)


def test_a_run_changes_what_was_found_alone():
    """A picture as its own latent: the bright half becomes red, the dark one stays as it is."""
    x = torch.full((1, 3, 8, 8), 0.1)
    x[..., 4:] = 0.9
    red = ColorPalette(None, torch.tensor([[1.0, 0.0, 0.0]]))
    found = Condition("red", red, region=LiveRegion(Bright(), 2))
    run = GuidedRun(
        [found],
        PRESETS["balanced"],
        decode=lambda latent: latent,
        schedule=Schedule(
            (2.0, 1.0, 0.0), lambda s: NoiseLevel(1.0, s), lambda share: 2.0 * (1.0 - share)
        ),
    )
    corrected = run.predict(x, 2.0, lambda y: y)
    trace = run.finish(corrected)
    moved = (corrected - x).abs().amax((0, 1, 2))
    assert not moved[:4].any() and moved[4:].all()
    assert any("red: what is bright was found in 1 of 1 looks" in note for note in trace.notes)
