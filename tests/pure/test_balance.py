"""Balancers against an independent implementation, closed forms and their published properties."""

import math
from pathlib import Path

import pytest
import torch
import torchjd.aggregation as torchjd
from hypothesis import given, settings
from hypothesis import strategies as st

from zmagic.guidance.balance import BALANCERS, balance
from zmagic.guidance.settings import GuidanceSettings


def random_tasks(seed, n, dimension=6, decades=0.0, batch=1):
    generator = torch.Generator().manual_seed(seed)
    tasks = torch.randn(batch, n, dimension, generator=generator, dtype=torch.float64)
    return tasks * 10.0 ** (decades * torch.rand(batch, n, 1, generator=generator).double())


def combine(tasks, method="cagrad", c=0.4, valid=None):
    gram = tasks @ tasks.transpose(1, 2)
    valid = torch.ones(tasks.shape[:2], dtype=torch.bool) if valid is None else valid
    weights = balance(gram, valid, method, c)
    return (weights[:, :, None] * tasks).sum(1), weights


def dual(tasks, w, c):
    mean = tasks.mean(0)
    return w @ tasks @ mean + c * mean.norm() * (w @ tasks).norm()


tasks_strategy = st.tuples(st.integers(0, 10_000), st.integers(2, 5))


def test_cagrad_equals_torchjd_on_120_gram_matrices_over_four_decades_of_scale():
    unsolved = 0
    for seed in range(120):  # twice each mix of tasks, decades, scale and c
        c = (0.1, 0.4, 0.9, 1.5)[seed % 4]
        tasks = random_tasks(seed, n=2 + seed % 4, decades=4.0 * (seed % 3) / 2)[0]
        tasks = tasks * 10.0 ** (seed % 5 - 2)
        theirs = torchjd.CAGrad(c=c)(tasks)
        if not theirs.any():  # the oracle's solver gives up on a few badly scaled matrices
            unsolved += 1
            continue
        ours, weights = combine(tasks[None], c=c)
        assert (ours[0] * (1.0 + c) - theirs).norm() <= 1e-3 * theirs.norm()
        # The conic solver is accurate to about 1e-4; the dual value says that we are no worse.
        simplex = torchjd.CAGradWeighting(c=c)(tasks @ tasks.T) - 1.0 / len(tasks)
        own = weights[0] * (1.0 + c) - 1.0 / len(tasks)
        best = dual(tasks, simplex / simplex.sum(), c)
        assert dual(tasks, own / own.sum(), c) <= best + 1e-6 * best.abs()
    assert unsolved <= 3


@given(tasks_strategy, st.floats(0.05, 2.0))
@settings(max_examples=100, deadline=None)
def test_two_tasks_equal_the_closed_form(case, c):
    g1, g2 = random_tasks(case[0], 2)[0]
    a, b, d = (g1 @ g1).item(), (g1 @ g2).item(), (g2 @ g2).item()
    big_a = a + d - 2 * b
    t = c * math.sqrt(a + d + 2 * b) / 2
    p, m, r = (a - d) / 2, (d - b) / big_a, (a * d - b * b) / big_a
    if t * t * big_a <= p * p:
        x = 0.0 if p > 0 else 1.0
    else:
        x = min(1.0, max(0.0, m - p * math.sqrt(r / (big_a * (t * t * big_a - p * p)))))
    g0, gw = (g1 + g2) / 2, x * g1 + (1 - x) * g2
    expected = (g0 + c * g0.norm() / gw.norm() * gw) / (1 + c)
    assert torch.allclose(
        combine(torch.stack([g1, g2])[None], c=c)[0][0], expected, rtol=1e-7, atol=1e-9
    )


@given(tasks_strategy, st.floats(0.0, 0.95))
@settings(max_examples=100, deadline=None)
def test_cagrad_stays_near_the_mean_and_never_serves_the_worst_task_less(case, c):
    tasks = random_tasks(*case)
    d = combine(tasks, c=c)[0][0] * (1.0 + c)
    mean = tasks[0].mean(0)
    assert (d - mean).norm() <= c * mean.norm() + 1e-9
    assert (tasks[0] @ d).min() >= (tasks[0] @ mean).min() - 1e-7


@given(tasks_strategy, st.floats(1.0, 5.0))
@settings(max_examples=100, deadline=None)
def test_cagrad_goes_against_no_task_for_c_of_at_least_one(case, c):
    tasks = random_tasks(*case)
    inner = tasks[0] @ combine(tasks, c=c)[0][0]
    assert inner.min() >= -1e-6 * tasks[0].norm() ** 2


def test_cagrad_can_go_against_a_task_at_the_default_c():
    """The documentation says this of the default, with these numbers."""
    tasks = torch.tensor([[[1.0, 0.0], [-0.5, 0.1]]], dtype=torch.float64)
    default = GuidanceSettings().cagrad_c
    assert default == 0.4
    inner = tasks[0] @ combine(tasks, c=default)[0][0]
    assert inner.tolist() == pytest.approx([0.107, -0.049], abs=5e-4)
    assert (tasks[0] @ combine(tasks, c=1.0)[0][0]).min() >= -1e-9
    page = (Path(__file__).resolve().parents[2] / "docs" / "method.md").read_text(encoding="utf-8")
    assert "(1, 0) and (-0.5, 0.1) and c = 0.4 the products with `d` are 0.107 and -0.049" in page


@given(tasks_strategy)
@settings(max_examples=50, deadline=None)
def test_mgda_is_the_shortest_vector_of_the_hull(case):
    tasks = random_tasks(*case)
    d, weights = combine(tasks, "mgda")
    assert torch.allclose(weights.sum(1), torch.ones(1, dtype=torch.float64))
    assert (tasks[0] @ d[0]).min() >= d[0] @ d[0] - 1e-6 * tasks[0].square().sum(1).max()


@given(tasks_strategy)
@settings(max_examples=50, deadline=None)
def test_pcgrad_of_two_conflicting_tasks_is_orthogonal_to_neither_partner(case):
    tasks = random_tasks(case[0], 2)
    g1, g2 = tasks[0]
    inner = g1 @ g2
    expected = g1 + g2
    if inner < 0:
        expected = expected - inner / (g2 @ g2) * g2 - inner / (g1 @ g1) * g1
    assert torch.allclose(combine(tasks, "pcgrad")[0][0], expected)


@pytest.mark.parametrize("method", BALANCERS)
@given(tasks_strategy)
@settings(max_examples=25, deadline=None)
def test_equivariant_to_permutation_and_homogeneous_in_a_common_scale(method, case):
    tasks = random_tasks(*case)
    order = torch.randperm(tasks.shape[1], generator=torch.Generator().manual_seed(case[0]))
    d = combine(tasks, method)[0]
    if method != "pcgrad":  # surgery depends on the order of the tasks
        assert torch.allclose(combine(tasks[:, order], method)[0], d, rtol=1e-4, atol=1e-6)
    # As near as the search's duality gap allows: rounding decides where it stops.
    assert torch.allclose(combine(1e-6 * tasks, method)[0], 1e-6 * d, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("method", BALANCERS)
def test_samples_of_a_batch_are_independent(method):
    tasks = random_tasks(3, 4, batch=5, decades=2.0)
    together = combine(tasks, method)[0]
    alone = torch.cat([combine(tasks[b : b + 1], method)[0] for b in range(5)])
    assert torch.allclose(together, alone, rtol=1e-9)


def test_c_zero_is_the_mean_and_one_task_is_itself():
    tasks = random_tasks(1, 3)
    assert torch.equal(combine(tasks, c=0.0)[1], torch.full((1, 3), 1 / 3, dtype=torch.float64))
    assert torch.allclose(combine(tasks[:, :1], c=0.4)[0], tasks[:, 0])


def test_pareto_stationary_tasks_return_their_mean():
    g = torch.tensor([[[1.0, 0.0], [-3.0, 0.0]]], dtype=torch.float64)
    assert torch.allclose(combine(g, c=1.5)[0], g.mean(1))  # for c < 1 the dual is not at 0
    opposite = torch.tensor([[[1.0, 2.0], [-1.0, -2.0]]], dtype=torch.float64)
    assert torch.allclose(combine(opposite)[0], torch.zeros(1, 2, dtype=torch.float64))


@pytest.mark.parametrize("method", BALANCERS)
def test_a_task_that_is_not_valid_takes_no_part_even_if_it_is_nan(method):
    tasks = random_tasks(9, 3)
    without = combine(tasks[:, :2], method)[0]
    tasks[:, 2] = torch.nan
    gram = tasks @ tasks.transpose(1, 2)
    weights = balance(gram, torch.tensor([[True, True, False]]), method, 0.4)
    assert weights[0, 2] == 0.0
    assert torch.allclose((weights[:, :2, None] * tasks[:, :2]).sum(1), without)


@pytest.mark.parametrize("method", BALANCERS)
def test_no_valid_task_at_all_gives_zero_weights(method):
    gram = torch.zeros(1, 2, 2, dtype=torch.float64)
    weights = balance(gram, torch.zeros(1, 2, dtype=torch.bool), method, 0.4)
    assert torch.equal(weights, torch.zeros(1, 2, dtype=torch.float64))
