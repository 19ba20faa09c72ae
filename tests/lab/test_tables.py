"""The statistics of the tables, their store and their plan."""

import errno
import math
import os
import re
from dataclasses import replace

import pytest
import torch

from zmagic.guidance.plots import HEIGHT, WIDTH
from zmagic.guidance.ranking import scores
from zmagic.guidance.settings import PRESETS
from zmagic.lab.candidates import best_candidates, candidates_for
from zmagic.lab.choice import STRONGEST, WEAKEST, choose, next_strengths
from zmagic.lab.figures import Panel, draw_panels, mean_lines
from zmagic.lab.methods import (
    ABLATIONS,
    BASELINE,
    BEST,
    BEST_FREEDOM,
    DEFAULT,
    EQUAL_COST,
    FAITHFUL,
    ONE_BACKWARD,
    PLAIN,
    QUALITY,
    UNGUIDED,
    methods,
    sampler_of,
)
from zmagic.lab.obedience import obedience
from zmagic.lab.plan import Plan
from zmagic.lab.report import found_rows, overview, summarize, tables
from zmagic.lab.results import Run, Store, markdown
from zmagic.lab.statistics import (
    Projection,
    paired_interval,
    set_ranks,
    win_rate,
    win_rate_on_all,
)
from zmagic.lab.table_figures import rank_curves, write_ranks

TASK = "identity + landmarks"


def test_the_interval_contains_the_true_mean_as_often_as_it_says():
    generator = torch.Generator().manual_seed(1)
    # Skewed, as differences of distances are: exponential, mean 1, shifted to mean 0.3.
    trials = -torch.rand(400, 100, generator=generator).log() - 0.7
    ends = [paired_interval(trial.tolist(), resamples=400) for trial in trials]
    covered = sum(low <= 0.3 <= high for low, high in ends) / len(ends)
    assert 0.91 <= covered <= 0.98  # 0.95, three standard errors of 400 trials below and above


def test_the_interval_is_that_of_a_normal_mean_for_many_sets():
    values = torch.randn(4000, generator=torch.Generator().manual_seed(2)).tolist()
    low, high = paired_interval(values)
    half = 1.96 / math.sqrt(4000)
    middle = sum(values) / 4000
    assert low == pytest.approx(middle - half, abs=0.15 * half)
    assert high == pytest.approx(middle + half, abs=0.15 * half)


def test_win_rates_count_a_tie_as_half():
    assert win_rate([1.0, 2.0, 3.0, 4.0], [2.0, 2.0, 2.0, 2.0]) == 1.5 / 4
    mine = {"a": [1.0, 1.0, 3.0], "b": [1.0, 5.0, 1.0]}
    other = {"a": [2.0, 2.0, 2.0], "b": [2.0, 2.0, 2.0]}
    assert win_rate_on_all(mine, other) == pytest.approx(1 / 3)


def test_ranks_are_shared_by_equal_values_and_add_up():
    ranks = set_ranks({"a": [1.0, 2.0], "b": [1.0, 1.0], "c": [3.0, 3.0]})
    assert ranks == {"a": [1.5, 2.0], "b": [1.5, 1.0], "c": [3.0, 3.0]}


def test_the_projection_keeps_the_directions_of_largest_variance():
    generator = torch.Generator().manual_seed(5)
    features = torch.randn(300, 5, generator=generator) * torch.tensor([1.0, 9.0, 0.1, 4.0, 0.2])
    projected = Projection(features, 2)(features)
    assert projected.shape == (300, 2)
    assert projected.mean(0) == pytest.approx(torch.zeros(2), abs=1e-6)
    kept = projected.var(0).sum() / features.double().var(0).sum()
    assert kept > 0.95
    assert Projection(features[:3], 4)(features).shape == (300, 2)


def measured(method: str, strength: float, number: int) -> dict:
    """Return made measurements: the chain is best at 0.3, the baseline worse by 0.1."""
    level = {BASELINE: 0.6, FAITHFUL: 0.5}.get(method, 0.7)
    value = level + abs(strength - 0.3) + 0.01 * math.sin(7.0 * number)
    return {
        "guide": {"identity": value, "landmarks": 2.0 * value},
        "evaluator": {"identity": value, "landmarks": None if number == 3 else 2.0 * value},
        "energies": {"identity": [1.0, value], "landmarks": [1.0, value]},
        "cosine": [0.5, -0.5],
        "forwards": 5,
        "backwards": 6,
        "face": True,
        "seconds": 0.5,
        "operations": 4.0,
    }


def all_runs() -> list[tuple[Run, dict]]:
    names = [method.name for method in methods(2)]
    strengths = {name: (0.0,) if name in PLAIN else (0.15, 0.3) for name in names}
    return [
        (Run(stage, TASK, name, strength, 6, k), measured(name, strength, k))
        for stage in ("tune", "test")
        for name in names
        for strength in strengths[name]
        for k in range(5)
    ]


def table_of(store: Store) -> str:
    names = [method.name for method in methods(2)]
    choice = choose(store, TASK, names, (0.15, 0.3))
    found = found_rows(store, "test", TASK, choice.strengths)
    return tables(TASK, summarize(found, BASELINE, None), BASELINE)


def test_a_killed_run_goes_on_to_the_same_table(tmp_path):
    rows = all_runs()
    whole = Store(tmp_path / "whole.jsonl")
    whole.add(rows)

    killed = Store(tmp_path / "killed.jsonl")
    killed.add(rows[:40])
    content = killed.path.read_bytes()
    killed.path.write_bytes(content[:-25])  # in the middle of a line
    resumed = Store(killed.path)
    assert len(resumed) == 39
    for run, row in rows:
        if run not in resumed:
            resumed.add([(run, row)])

    assert table_of(resumed) == table_of(whole)
    assert table_of(Store(killed.path)) == table_of(whole)  # from the file as well


def test_a_full_disk_leaves_the_runs_that_were_there(tmp_path, monkeypatch):
    rows, store = all_runs(), Store(tmp_path / "runs.jsonl")
    store.add(rows[:3])
    content = store.path.read_bytes()

    def full(file):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        store.add(rows[3:])
    assert store.path.read_bytes() == content and len(store) == 3


def test_a_store_refuses_the_file_of_something_else(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text('{"seconds": 1}\n')
    with pytest.raises(ValueError, match="does not hold the runs of these tables"):
        Store(path)


def test_the_strength_is_the_evaluators_choice_and_one_way_of_equal_cost_is_kept(tmp_path):
    store = Store(tmp_path / "runs.jsonl")
    store.add(all_runs())
    choice = choose(store, TASK, [method.name for method in methods(2)], (0.15, 0.3))
    assert {choice.strengths.pop(name) for name in PLAIN} == {0.0}
    assert set(choice.strengths.values()) == {0.3}
    assert len(set(EQUAL_COST) & set(choice.strengths)) == 1


def test_strengths_are_chosen_among_some_methods_too(tmp_path):
    store = Store(tmp_path / "runs.jsonl")
    none_tuned = choose(store, TASK, ["unguided", BASELINE, EQUAL_COST[1]], (0.15, 0.3))
    assert none_tuned.strengths == {"unguided": 0.0, BASELINE: 0.15, EQUAL_COST[1]: 0.15}
    store.add(all_runs())
    assert choose(store, TASK, ["unguided", BASELINE], (0.15, 0.3)).strengths == {
        "unguided": 0.0,
        BASELINE: 0.3,
    }


def tuned(store: Store, curve) -> dict[str, float]:
    """Choose the strength of the paper's method, whose distance is ``curve(strength)``."""
    strengths = (0.1, 0.2, 0.4)
    tried: set[float] = set()

    def rows(name, strength):
        value = curve(strength) if name == FAITHFUL else 1.0
        distances = {"identity": value, "landmarks": value}
        row = {**measured(name, strength, 0), "evaluator": distances}
        return [(Run("tune", TASK, name, strength, 6, k), row) for k in range(2)]

    store.add(rows(UNGUIDED, 0.0))
    wanted = {name: strengths for name in (BASELINE, FAITHFUL)}
    while wanted:
        for name, each in wanted.items():
            for strength in each:
                store.add(rows(name, strength))
        tried.update(wanted.get(FAITHFUL, ()))
        choice = choose(store, TASK, [UNGUIDED, BASELINE, FAITHFUL], strengths)
        wanted = {name: (s,) for name, s in next_strengths(choice.scores).items()}
        wanted.pop(BASELINE, None)  # equal at all strengths
    return {"best": choice.strengths[FAITHFUL], "least": min(tried), "most": max(tried)}


def test_the_grid_of_strengths_grows_until_the_best_is_inside(tmp_path):
    inside = tuned(Store(tmp_path / "a.jsonl"), lambda s: abs(math.log(s / 0.2)))
    assert inside == {"best": 0.2, "least": 0.1, "most": 0.4}
    strong = tuned(Store(tmp_path / "b.jsonl"), lambda s: abs(math.log(s / 1.6)))
    assert strong == {"best": 1.6, "least": 0.1, "most": 3.2}
    weak = tuned(Store(tmp_path / "c.jsonl"), lambda s: abs(math.log(s / 0.05)))
    assert weak == {"best": 0.05, "least": 0.025, "most": 0.4}


def test_the_grid_does_not_grow_without_end(tmp_path):
    assert tuned(Store(tmp_path / "a.jsonl"), lambda s: -s)["best"] == STRONGEST
    assert tuned(Store(tmp_path / "b.jsonl"), lambda s: s)["best"] == WEAKEST
    assert next_strengths({BASELINE: {0.2: 1.0}}) == {}  # nothing was tuned


def test_the_grid_of_dsg_ends_at_1():
    (dsg,) = (method for method in methods(2) if method.name == "DSG")
    strongest = {dsg.name: dsg.settings.strongest}
    assert next_strengths({"DSG": {0.4: 2.0, 0.8: 1.0}}, strongest) == {"DSG": 1.0}
    assert next_strengths({"DSG": {0.4: 2.0, 1.0: 1.0}}, strongest) == {}
    assert next_strengths({"DSG": {0.4: 2.0, 0.8: 3.0}}, strongest) == {"DSG": 0.2}
    replace(dsg.settings, strength=1.0)
    with pytest.raises(ValueError, match="set strength to 1 or less"):
        replace(dsg.settings, strength=1.01)


def test_best_of_n_takes_the_strength_of_the_method_that_makes_its_pictures(tmp_path):
    store = Store(tmp_path / "runs.jsonl")
    store.add((run, row) for run, row in all_runs() if run.method != BEST_FREEDOM)
    choice = choose(store, TASK, [UNGUIDED, ONE_BACKWARD, BEST_FREEDOM], (0.15, 0.3))
    assert choice.strengths[BEST_FREEDOM] == choice.strengths[ONE_BACKWARD] == 0.3


def test_the_best_candidate_is_chosen_for_each_picture_whatever_the_units():
    tries = [
        {"text": [1.0, 0.2], "style": [50.0, 90.0]},
        {"text": [0.5, 0.9], "style": [60.0, 80.0]},
        {"text": [1.0, 0.3], "style": [70.0, 10.0]},
    ]
    assert best_candidates(tries) == [1, 2]
    scaled = [{**each, "style": [1e-6 * e for e in each["style"]]} for each in tries]
    assert best_candidates(scaled) == [1, 2]
    assert best_candidates([{"text": [0.0]}, {"text": [0.0]}]) == [0]
    # As Keep Best: by standard deviations. By shares of the mean the second one would win.
    near = {"a": [1.0, 1.1, 1.1], "b": [1.3, 1.0, 5.0]}
    scored = scores(near, {"a": 1.0, "b": 1.0})
    assert scored.index(min(scored)) == 0
    assert best_candidates([{n: [near[n][k]] for n in near} for k in range(3)]) == [0]


def test_every_row_has_the_solver_of_its_settings():
    assert all(method.sampler == sampler_of(method.settings) for method in methods(2))
    assert {sampler_of(each) for each in PRESETS.values()} == {"euler", "dpmpp_2m"}


def test_as_many_candidates_as_the_operations_allow():
    assert candidates_for(3.9, 1.0, 0.3) == 3
    assert candidates_for(0.5, 1.0, 0.3) == 1


def test_obedience_is_the_share_of_the_gain_that_the_evaluator_sees():
    def row(guide, evaluator, **more):
        seen = {"guide": {"identity": guide}, "evaluator": {"identity": evaluator}}
        return {**seen, **more}

    real = {"guide": {"identity": 0.4}, "evaluator": {"identity": 0.6}}
    unguided = {k: row(1.4, 1.6, real=real) for k in range(3)}
    # The guide sees 80 % of the way to a real picture, the evaluator 20 %.
    guided = {k: row(0.6, 1.4) for k in range(3)}
    assert obedience(guided, unguided, "identity", range(3)) == pytest.approx(0.25)
    assert obedience(unguided, unguided, "identity", range(3)) is None  # nothing gained
    guided[2] = row(0.6, None)  # its reference cannot be seen: not a part of either gain
    assert obedience(guided, unguided, "identity", range(3)) == pytest.approx(0.25)
    assert obedience(guided, {k: row(1.4, 1.6) for k in range(3)}, "identity", range(3)) is None


def with_real_pictures(rows):
    """The measurements with distances of real pictures, which satisfy the conditions wholly."""
    none = {"identity": 0.0, "landmarks": 0.0}
    return [(run, {**row, "real": {"guide": none, "evaluator": none}}) for run, row in rows]


def test_the_tables_have_operations_obedience_and_candidates(tmp_path):
    store = Store(tmp_path / "runs.jsonl")
    store.add(with_real_pictures(all_runs()))
    strengths = {UNGUIDED: 0.0, BASELINE: 0.3, FAITHFUL: 0.3, BEST: 0.0}
    rows = summarize(found_rows(store, "test", TASK, strengths), BASELINE, None)
    (faithful,) = (row for row in rows if row.method == FAITHFUL)
    assert faithful.operations == 4.0
    # Guide and evaluator see the same in these measurements.
    assert faithful.obedience["identity"] == pytest.approx(1.0)
    text = tables(TASK, rows, BASELINE, {BEST: 5})
    assert f"| {BEST} (N = 5) | 0 |" in text and text.count("operations |") == 2
    compared = text.split("Against")[1]
    assert re.search(rf"\| {FAITHFUL} \| -0.1 .*, 100%, 1.00 \|", compared)


def test_every_method_is_in_one_plot_of_ranks_over_operations(tmp_path):
    plan = Plan((TASK,), tests=5, tunings=5, ablations=0, steps=6)
    store = Store(tmp_path / "runs.jsonl")
    cost = {UNGUIDED: 1.0, BEST: 4.0, DEFAULT: 4.1, QUALITY: 12.0}
    store.add((run, {**row, "operations": cost.get(run.method, 3.0)}) for run, row in all_runs())
    names = [method.name for method in plan.rows(TASK)]
    choice = choose(store, TASK, names, (0.15, 0.3))
    rows = summarize(found_rows(store, "test", TASK, choice.strengths), BASELINE, None)
    lines = rank_curves(plan.rows(TASK), {row.method: [row] for row in rows})
    assert sum(map(len, lines.values())) == len(rows)
    assert [x for x, _ in lines["Z-Magic"]] == [3.0, 3.0, 4.1, 12.0]
    assert [x for x, _ in lines["best of N"]][:2] == [1.0, 3.0]
    assert {"DSG", "TFG", "UGD", "MPGD", BASELINE, FAITHFUL} <= lines.keys()
    write_ranks({TASK: rows, "again": rows}, plan, tmp_path)
    assert (tmp_path / "ranks.png").stat().st_size > 10_000


def test_rows_without_counted_operations_are_in_no_plot(tmp_path):
    store = Store(tmp_path / "runs.jsonl")
    store.add((run, {**row, "operations": None}) for run, row in all_runs())
    rows = summarize(found_rows(store, "test", TASK, {BASELINE: 0.3}), BASELINE, None)
    assert rank_curves(methods(2), {BASELINE: rows}) == {}
    assert rows[0].operations is None


def test_a_summary_compares_the_same_sets_by_the_evaluator(tmp_path):
    store = Store(tmp_path / "runs.jsonl")
    store.add(all_runs())
    found = found_rows(store, "test", TASK, {BASELINE: 0.3, FAITHFUL: 0.3})
    rows = {summary.method: summary for summary in summarize(found, BASELINE, None)}
    mean, low, high = rows[FAITHFUL].difference["identity"]
    assert mean == pytest.approx(-0.1) and low == pytest.approx(-0.1) == high
    assert rows[FAITHFUL].wins == {"identity": 1.0, "landmarks": 1.0}
    assert rows[FAITHFUL].wins_on_all == 1.0 and rows[BASELINE].wins_on_all == 0.0
    assert (rows[FAITHFUL].rank, rows[BASELINE].rank) == (1.0, 2.0)
    assert rows[FAITHFUL].rank_difference == (-1.0, -1.0, -1.0)
    assert rows[FAITHFUL].frechet is None


def test_a_picture_without_a_face_is_nobodys_likeness(tmp_path):
    """The evaluator sees a face everywhere: here the nearest one where there is none."""
    store = Store(tmp_path / "runs.jsonl")
    store.add((run, {**row, "face": run.method != FAITHFUL}) for run, row in all_runs())
    found = found_rows(store, "test", TASK, {BASELINE: 0.3, FAITHFUL: 0.3})
    rows = {summary.method: summary for summary in summarize(found, BASELINE, None)}
    assert rows[FAITHFUL].difference["identity"][0] == pytest.approx(-0.1)  # as the network says
    assert rows[FAITHFUL].wins == {"identity": 0.0, "landmarks": 0.0}
    assert (rows[FAITHFUL].rank, rows[BASELINE].rank) == (2.0, 1.0)


def test_a_strength_that_breaks_the_face_is_not_chosen(tmp_path):
    store = Store(tmp_path / "runs.jsonl")
    store.add((run, {**row, "face": run.strength < 0.3}) for run, row in all_runs())
    choice = choose(store, TASK, [method.name for method in methods(2)], (0.15, 0.3))
    assert set(choice.strengths.values()) == {0.0, 0.15}


def test_the_overview_has_every_method_of_every_task(tmp_path):
    store = Store(tmp_path / "runs.jsonl")
    store.add(all_runs())
    found = found_rows(store, "test", TASK, {BASELINE: 0.3, FAITHFUL: 0.3})
    both = summarize(found, BASELINE, None)
    lines = overview({"one": both, "two": both[:1]}, BASELINE).splitlines()
    assert lines[2] == f"| {BASELINE} | 2 | 2 | 4 | 1 |"
    assert lines[3] == f"| {FAITHFUL} | 1 (-1 [-1, -1]) |  | 4 | 1 |"


def test_markdown_has_a_cell_for_everything():
    text = markdown(["a", "b"], [["x", 0.123456], [1, None]])
    assert text == "| a | b |\n| --- | --- |\n| x | 0.123 |\n| 1 |  |\n"


@pytest.mark.parametrize("n", [2, 3, 6])
def test_evaluations_are_those_of_the_method(n):
    rows = {method.name: method for method in methods(n)}
    assert rows[FAITHFUL].evaluations(n) == (2 * n + 1) + 3 * n
    assert rows[BASELINE].evaluations(n) == 1 + n
    assert rows["Z-Magic prediction"].evaluations(n) == 2
    assert rows["unguided"].evaluations(n) == rows["MPGD"].evaluations(n) == 1
    for name in EQUAL_COST:  # never fewer than the method that it is compared with
        assert 0 <= rows[name].evaluations(n) - rows[FAITHFUL].evaluations(n) < 1 + n


def test_the_studies_vary_what_they_say():
    assert {m.settings.dependence for m in ABLATIONS["dependence"]} == {
        "off",
        "first_order",
        "finite_difference",
        "exact",
    }
    assert {m.settings.balance for m in ABLATIONS["balance"]} == {"sum", "pcgrad", "mgda", "cagrad"}
    assert {m.settings.order for m in ABLATIONS["order"]} == {"symmetric", "as_connected", "auto"}
    assert sum(m.backwards for m in ABLATIONS["order"]) == 1
    assert {m.conditions for m in ABLATIONS["number of conditions"]} == {2, 3, 4, 5, 6}


def test_plots_are_drawn_and_empty_ones_left_out(tmp_path):
    line = mean_lines([[1.0, 0.0, 2.0], [3.0, 2.0, 0.0]])
    assert line == [(0.0, 2.0), (0.5, 1.0), (1.0, 1.0)]
    labels = [f"method {k}" for k in range(8)]
    panels = [Panel("one", dict.fromkeys(labels, line)), Panel("point", {"": [(1.0, 1.0)]})]
    draw_panels([*panels, Panel("none", {"": []})], tmp_path / "plots.png")
    from PIL import Image

    with Image.open(tmp_path / "plots.png") as picture:
        assert picture.width == 2 * WIDTH and picture.height > HEIGHT  # with names below
    draw_panels([Panel("none", {})], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
