"""What was looked for and is not there is no good picture: not satisfied, measured as nothing."""

import json
import math

import pytest
import torch

from zmagic.guidance import PRESETS, GuidedRun, NoiseLevel, Schedule, preset
from zmagic.guidance.candidates import chosen, put_into
from zmagic.guidance.conditions import Condition
from zmagic.guidance.energies import ColorPalette
from zmagic.guidance.faces.crops import Faces
from zmagic.guidance.faces.crowds import Crowd
from zmagic.guidance.faces.face_energy import FaceEnergy
from zmagic.guidance.faces.location import FaceLocator
from zmagic.guidance.live_regions import LiveRegion
from zmagic.guidance.noise_run import NoiseRun
from zmagic.guidance.noise_search import NoiseSearch
from zmagic.guidance.progress import look_line
from zmagic.guidance.ranking import best_first, scores
from zmagic.guidance.trace import Trace

SCHEDULE = Schedule(
    (2.0, 1.0, 0.0), lambda s: NoiseLevel(1.0, s), lambda share: 2.0 * (1.0 - share)
)


class Bright:
    """Finds what is bright."""

    sought = "what is bright"

    def __call__(self, image):
        return (image.mean(1) > 0.5).to(image)


class FaceBrightness(FaceEnergy):
    """How bright a picture is, as a quality of its face."""

    def of_faces(self, image, region, faces, cut):
        return image.flatten(1).mean(1)


def detect_bright(picture):
    """A face wherever the picture is bright."""
    from zmagic.guidance.faces.detections import Detection

    found = [Detection(torch.tensor([0.1, 0.1, 0.6, 0.6]))]
    return found if picture.mean() > 0.5 else []


def red(**options) -> Condition:
    return Condition("red", ColorPalette(None, torch.tensor([[1.0, 0.0, 0.0]])), **options)


def live(**options) -> Condition:
    return red(region=LiveRegion(Bright(), 1, "Do this"), **options)


def face(**options) -> Condition:
    return Condition("face", FaceBrightness(FaceLocator(detect_bright), None), **options)


def pictures(*bright: float) -> torch.Tensor:
    return torch.stack([torch.full((3, 8, 8), value) for value in bright])


def run(*conditions: Condition, **settings) -> GuidedRun:
    return GuidedRun(
        conditions, preset("balanced", **settings), decode=lambda latent: latent, schedule=SCHEDULE
    )


def finished(x: torch.Tensor, *conditions: Condition, **settings) -> Trace:
    made = run(*conditions, **settings)
    return made.finish(made.predict(x, 2.0, lambda y: y))


@pytest.mark.parametrize("condition", [live(), face()])
def test_a_finished_picture_has_no_energy_of_what_was_not_found_and_it_is_said(condition):
    trace = finished(pictures(0.1, 0.9), condition)
    first, second = trace.final[condition.name]
    assert math.isnan(first) and math.isfinite(second)
    report = json.loads(trace.to_json())
    assert report["conditions"][0]["unseen"] == [0]
    assert report["final"][condition.name][0] is None
    assert f"{condition.name} not seen in picture 1" in report["words"]
    alone = finished(pictures(0.1), condition)
    assert f"{condition.name} not seen in the finished picture" in alone.words()
    assert "-> no energy" in alone.summary()


def test_a_step_has_none_of_an_empty_region_and_the_energy_of_the_assumed_face():
    trace = finished(pictures(0.1, 0.9), live(), face())
    (record,) = trace.steps
    assert math.isnan(record.energies[0][0]) and math.isfinite(record.energies[0][1])
    assert record.energies[1] == pytest.approx([0.1, 0.9])
    assert finished(pictures(0.1), live()).steps[0].correction == [0.0]
    assert look_line(finished(pictures(0.1), live()).steps[0], 2) == "step 1/2: red no energy"


@pytest.mark.parametrize("kind", [live, face])
def test_what_was_not_found_satisfies_nothing(kind):
    trace = finished(pictures(0.1, 0.9), kind(satisfied_at=1e6))
    assert trace.steps[0].satisfied == [[False, True]]


def test_an_empty_mask_of_one_picture_is_the_same():
    masks = torch.zeros(2, 8, 8)
    masks[1] = 1.0
    trace = finished(pictures(0.1, 0.9), red(region=masks, satisfied_at=1e6))
    assert math.isnan(trace.final["red"][0]) and trace.steps[0].satisfied == [[False, True]]


def test_what_was_lost_is_looked_for_in_the_next_step():
    (condition,) = run(red(region=LiveRegion(Bright(), 2))).conditions
    region = condition.region
    for step, bright, unseen in ((0, 0.9, False), (2, 0.1, True), (3, 0.9, False), (4, 0.9, False)):
        region.begin_step(step)
        region.at(pictures(bright))
        assert region.unseen == [unseen]


def test_where_it_was_lost_a_step_has_the_energy_of_the_place_that_it_follows():
    made = run(live())
    for sigma, bright in ((2.0, 0.9), (1.0, 0.1)):
        latent = made.predict(pictures(bright), sigma, lambda y: y)
    for record in made.trace.steps:
        assert math.isfinite(record.energies[0][0]) and record.correction[0] > 0.0
    assert math.isnan(made.finish(latent).final["red"][0])


@pytest.mark.parametrize("condition", [live(), face()])
def test_a_candidate_without_it_does_not_win(condition):
    early = [finished(pictures(bright), condition) for bright in (0.1, 0.9)]
    place, candidates = chosen([10, 11], early)
    assert place == 1 and candidates[0].score == math.inf
    trace = Trace({}, about={"seed": 11})
    put_into(trace, candidates, early)
    assert (
        f"1 of them without an energy of {condition.name}" in trace.words() and not trace.warnings
    )
    none = [finished(pictures(0.1), condition) for _ in range(2)]
    trace = Trace({})
    put_into(trace, chosen([10, 11], none)[1], none)
    assert "could not be compared" in trace.warnings[0] and "not seen" in trace.warnings[0]


@pytest.mark.parametrize("kind", [live, face])
def test_batches_are_compared_by_the_pictures_that_have_it(kind):
    """In nearly every batch of several pictures something is not found in one of them."""
    batches = [(0.1, 0.6, 0.9), (0.1, 0.2, 0.6), (0.1, 0.6, 0.7), (0.2, 0.9, 0.9)]
    early = [finished(pictures(*bright), kind(), strength=0.0) for bright in batches]
    place, candidates = chosen(range(4), early)
    (name,) = early[0].final
    means = [sum(each.final[name][1:]) for each in early]
    assert [math.isfinite(each.score) for each in candidates] == [True, False, True, True]
    assert place == min((0, 2, 3), key=means.__getitem__)


def test_a_condition_that_is_seen_nowhere_leaves_the_choice_to_the_others():
    energies = {"dress": [math.nan] * 3, "text": [3.0, 1.0, 2.0]}
    assert best_first(scores(energies, {"dress": 1.0, "text": 1.0})) == [1, 2, 0]


@pytest.mark.parametrize("condition", [live(), face()])
def test_a_noise_whose_picture_lacks_it_is_not_the_best(condition):
    """The first picture is dark; moved along, it gets bright."""
    other = Condition(
        "bright", lambda image, region=None: (image - 0.9).square().flatten(1).mean(1)
    )
    search = NoiseRun(
        [condition, other],
        PRESETS["balanced"],
        NoiseSearch(evaluations=30, rate=0.2, white=False),
        decode=lambda latent: latent,
        schedule=SCHEDULE,
    )
    noise = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    weights = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(2))

    def sample(z):
        level = torch.sigmoid((z * weights).mean((1, 2, 3), keepdim=True) * 8.0 - 0.6)
        return level.expand_as(z)

    search.search(noise, sample)
    values = [record.energies[0][0] for record in search.trace.steps]
    assert math.isnan(values[0]) and any(map(math.isfinite, values))
    assert math.isfinite(values[search.trace.noise.best[0]])


def test_the_demo_tells_a_picture_without_an_energy(pytestconfig, capsys):
    demo = pytestconfig.zmagic_script("demo")

    def better(ours: list, plain: list) -> bool:
        finals = {demo.OURS: {"face": ours}, demo.PLAIN: {"face": plain}}
        return demo.every_energy_lower({name: {"final": each} for name, each in finals.items()})

    assert better([0.1, 0.2], [0.3, None]) and not better([0.1, None], [0.3, 0.4])
    totals = {"plain_denoiser_forwards": 2, "forwards": {}, "backwards": {}, "seconds": 1.0}
    run = {"final": {"face": [0.25, None]}, "cosines": {}, "totals": totals}
    report = {"runs": {"ours": run}, "pictures": 2, "seconds": 1.0}
    seen = {"identity": {"ours": [0.5, 0.25]}, "layout": {"ours": [0.75, 1.0]}}
    seen |= {"prompt": {"ours": [{"hair color": 0.125}, {"hair color": -0.5}]}, "agrees": False}
    demo._print({**report, "every_energy_lower_than_prompt_alone": True, "evaluators": seen})
    printed = capsys.readouterr().out
    assert "0.2500  none" in printed and "+0.500  +0.250" in printed
    assert "hair color     +0.125  -0.500" in printed
    assert "in all 2: yes" in printed and "evaluators see it, too: NO" in printed


# ---------------------------------------------------------------- given faces, and a region


def crowd(**options) -> Condition:
    """Two given faces, one left and one right, of which the region chooses."""
    boxes = Faces.from_boxes(torch.tensor([[0.1, 0.1, 0.3, 0.4], [0.6, 0.1, 0.9, 0.5]]))
    return Condition(
        "face", FaceBrightness(FaceLocator(fixed=Crowd([boxes], 1.0)), None), **options
    )


def part(left: int, right: int, top: int = 0) -> torch.Tensor:
    mask = torch.zeros(1, 8, 8)
    mask[:, top:, left:right] = 1.0
    return mask


def test_the_region_chooses_and_where_it_holds_none_of_them_none_is_taken():
    trace = finished(pictures(0.4), crowd(region=part(0, 4)))
    assert math.isfinite(trace.final["face"][0]) and not trace.warnings
    trace = finished(pictures(0.4), crowd(region=part(0, 8, top=6)))
    assert math.isnan(trace.final["face"][0])
    (warning,) = trace.warnings
    assert warning == (
        "face: none of the given faces lies in the region: guided all the time in the center of "
        "the region"
    )
    assert "face not seen in the finished picture" in trace.words()
    assert not finished(pictures(0.4), crowd()).warnings  # without a region the largest
