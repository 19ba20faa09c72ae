"""What the tables are going to measure, and that every picture of a batch follows its own set."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from zmagic.guidance.faces.crops import Faces
from zmagic.lab.budget import Cost, chosen_plan
from zmagic.lab.condition_sets import ConditionSet, Portrait
from zmagic.lab.jobs import estimated_jobs, jobs_of_strengths, jobs_of_test, jobs_of_tuning
from zmagic.lab.methods import (
    ABLATIONS,
    BASELINE,
    BEST_FREEDOM,
    DEFAULT,
    EQUAL_COST,
    ONE_BACKWARD,
    PLAIN,
    TUNED_AS,
    UNGUIDED,
    methods,
)
from zmagic.lab.pictures import Pictures
from zmagic.lab.plan import Plan
from zmagic.lab.results import Run, Store
from zmagic.lab.tasks import TASKS, attributes_of

ALL_TASKS, ALL_STUDIES = tuple(TASKS), tuple(ABLATIONS)
HOURS = 5.0  # the default of the command
BEST_OF_N = set(PLAIN) - {UNGUIDED}
# The cost on two cores that do nothing else, at 128 pixels.
TWO_CORES = Cost(evaluation=0.07, measurement=0.5)


def sets(count: int) -> list[ConditionSet]:
    face = Faces.whole(1, 1.0)
    portrait = Portrait("grey", 0, torch.full((1, 3, 8, 8), 0.5), face, "a grey picture")
    return [ConditionSet(k, portrait, portrait) for k in range(count)]


def planned(quick: bool, seconds: float, cost: Cost = TWO_CORES) -> tuple[Plan, float]:
    studies = () if quick else ALL_STUDIES
    return chosen_plan(quick, seconds, cost, sets, tasks=ALL_TASKS, studies=studies)


def test_both_runs_fit_into_their_time_on_two_cores():
    quick, quick_seconds = planned(True, 280.0)
    full, full_seconds = planned(False, HOURS * 3600.0)
    assert quick_seconds < 280.0 and quick.tests >= 2 and not quick.tunings
    assert full_seconds < HOURS * 3600.0 and full.tests == 100 and full.studies == ALL_STUDIES


def test_a_faster_machine_takes_more_steps_and_the_same_sets():
    slow, _ = planned(False, HOURS * 3600.0)
    fast, _ = planned(False, HOURS * 3600.0, Cost(0.01, 0.1))
    assert fast.steps > slow.steps and fast.tests == slow.tests


def test_methods_steps_and_sets_can_be_chosen():
    plan, _ = chosen_plan(
        *(False, 60.0, TWO_CORES, sets),
        tasks=ALL_TASKS,
        studies=(),
        methods=("Z-Magic default", EQUAL_COST[1]),
        steps=20,
        tests=50,
    )
    jobs = list(estimated_jobs(plan, sets(plan.tests)))
    assert {job.method.name for job in jobs} == {
        *(UNGUIDED, BASELINE, "Z-Magic default", EQUAL_COST[1])
    }
    assert {job.steps for job in jobs} == {20} and plan.tests == 50
    # The only way of equal cost that is asked for is tested, so its time counts.
    assert any(job.stage == "test" and job.method.name == EQUAL_COST[1] for job in jobs)


def test_best_of_n_makes_the_pictures_of_the_plan_and_takes_the_strength_of_its_method():
    (task,) = chosen = (ALL_TASKS[1],)
    plan = Plan(chosen, tests=2, tunings=1, ablations=0, steps=3, methods=(BEST_FREEDOM,))
    plan = replace(plan, candidates={task: {BEST_FREEDOM: 3}})
    rows = {method.name: method for method in plan.rows(task)}
    assert rows.keys() == {UNGUIDED, BASELINE, ONE_BACKWARD, BEST_FREEDOM}
    assert rows[BEST_FREEDOM].like == DEFAULT and rows[BEST_FREEDOM].candidates == 3
    assert rows[BEST_FREEDOM].evaluations(2) == 3 * rows[ONE_BACKWARD].evaluations(2)
    assert BEST_FREEDOM not in {job.method.name for job in jobs_of_tuning(plan, sets(1))}


def test_a_grid_grows_for_one_method_alone():
    plan = Plan((ALL_TASKS[1],), tests=2, tunings=2, ablations=0, steps=3)
    jobs = list(jobs_of_strengths(plan, sets(2), ALL_TASKS[1], {"DSG": (1.6,)}))
    assert [(job.stage, job.method.name, job.strength) for job in jobs] == [("tune", "DSG", 1.6)]
    assert [each.number for each in jobs[0].sets] == [0, 1]


def test_a_plan_is_read_as_it_was_saved(tmp_path):
    plan, _ = planned(False, HOURS * 3600.0)
    plan = replace(plan, candidates={ALL_TASKS[0]: {BEST_FREEDOM: 2}}, prompts=True)
    plan.save(tmp_path / "results" / "plan.json")
    assert Plan.load(tmp_path / "results" / "plan.json") == plan
    assert Plan.load(tmp_path / "plan.json") is None


def test_every_method_is_tuned_with_the_same_strengths_on_the_same_sets():
    plan, _ = planned(False, HOURS * 3600.0)
    tried: dict[tuple[str, str], set] = {}
    for job in jobs_of_tuning(plan, sets(plan.tunings)):
        tried.setdefault((job.task, job.method.name), set()).update(
            (run.strength, run.number) for run in job.runs
        )
    guided = [runs for (_, name), runs in tried.items() if name != UNGUIDED]
    wanted = {
        (task, method.name)
        for task in ALL_TASKS
        for method in methods(len(attributes_of(task)))
        if method.name not in TUNED_AS
    }
    assert tried.keys() == wanted - {(task, name) for task in ALL_TASKS for name in BEST_OF_N}
    assert all(runs == guided[0] for runs in guided)
    assert len(guided[0]) == len(plan.strengths) * plan.tunings


def test_all_methods_share_the_batches_and_with_them_the_noise():
    plan, _ = planned(False, HOURS * 3600.0)
    batches: dict[str, list] = {}
    for job in jobs_of_test(plan, sets(plan.tests), lambda *_: 0.2):
        if job.task == ALL_TASKS[0]:
            batches.setdefault(job.method.name, []).append([each.number for each in job.sets])
    assert all(each == batches[UNGUIDED] for each in batches.values())
    assert sum(map(len, batches[UNGUIDED])) == 100


def test_no_run_is_asked_for_twice_and_what_is_done_costs_nothing(tmp_path):
    plan = Plan(ALL_TASKS, tests=4, tunings=2, ablations=2, steps=3)
    jobs = list(estimated_jobs(plan, sets(4)))
    runs = [run for job in jobs for run in job.runs]
    assert len(set(runs)) == len(runs)
    assert not any(run.stage == "test" and run.method == EQUAL_COST[1] for run in runs)
    store = Store(tmp_path / "runs.jsonl")
    before = TWO_CORES.of(jobs, store)
    store.add([(run, {}) for run in jobs[0].runs])
    assert before - TWO_CORES.of(jobs, store) == pytest.approx(TWO_CORES.of(jobs[:1]))


def test_kept_pictures_are_shown_beside_what_was_wanted(tmp_path):
    wanted = sets(2)
    pictures = Pictures(tmp_path)
    runs = {
        stage: [Run(stage, "task", "ours", 0.1, 4, number) for number in range(2)]
        for stage in ("tune", "test")
    }
    shades = torch.tensor([0.2, 0.6]).view(2, 1, 1, 1).expand(2, 3, 8, 8)
    pictures.keep(runs["tune"], shades)
    pictures.sheet("task", {"ours": 0.1}, wanted, tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()  # those of the tuning are not for the tables

    pictures.keep(runs["test"], shades)
    pictures.sheet("task", {"ours": 0.1, "absent": 0.1}, wanted, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = pil_to_tensor(sheet)
    side = pixels.shape[2] // 3  # columns: person, layout, ours
    shown = [int(pixels[0, row, -side // 2]) for row in (-3 * side // 2, -side // 2)]
    assert shown == [round(0.2 * 255), round(0.6 * 255)]
