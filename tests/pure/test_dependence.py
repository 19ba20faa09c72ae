"""Pair gradients against finite differences, closed forms and the literal enumeration of pairs."""

import pytest
import torch

from zmagic.guidance.conditions import Condition
from zmagic.guidance.dependence import condition_gradients, dependent_tasks
from zmagic.guidance.evaluation import EnergyField, Meter

K = 0.01
FORMS = ("exact", "finite_difference", "mutual", "first_order")


def tasks_of(field, u, n, dependence="exact", tasks="rows", order="symmetric", k=K):
    point = field.at(u)
    own = condition_gradients(point, [1.0 + j for j in range(n)])
    return own, dependent_tasks(
        field, point, own, dependence=dependence, tasks=tasks, order=order, look_ahead=k
    )


def literal_pair(field, u, scales, i, j, k=K):
    """``g_i(x) + (I + k H_i) g_j(x_i)`` with autograd alone: nothing shared, H_i by jacobian."""

    def g(index):
        def value(x):
            x = x if x.requires_grad else x.clone().requires_grad_(True)
            image = x
            for stage in field.stages:
                image = stage.function(image)
            energy = field.conditions[index].energy(image).sum()
            return -scales[index] * torch.autograd.grad(energy, x, create_graph=True)[0]

        return value

    ahead = u + k * g(i)(u).detach()
    v = g(j)(ahead).detach()
    hessian = torch.autograd.functional.jacobian(g(i), u).reshape(u.numel(), u.numel())
    return g(i)(u).detach() + v + k * (hessian @ v.flatten()).reshape(u.shape)


def test_condition_gradient_agrees_with_finite_differences_and_has_the_rms_of_its_weight(world):
    conditions = world.conditions(2)
    field, u = world.field(conditions), world.latent(batch=2)
    own = condition_gradients(field.at(u), [1.0, 2.5])
    v = world.latent(batch=2, seed=11)
    eps = 1e-5
    for j, weight in enumerate((1.0, 2.5)):
        slopes = [
            conditions[j].energy(world.decode(world.denoise(u + sign * eps * v)))
            for sign in (1, -1)
        ]
        slope = (slopes[0] - slopes[1]) / (2 * eps)
        inner = -(own.vectors[j] * v).flatten(1).sum(1) / own.scales[j]
        assert torch.allclose(inner, slope, rtol=1e-6)
        size = own.vectors[j].flatten(1).square().mean(1).sqrt()
        assert torch.allclose(size, torch.full_like(size, weight))


def test_exact_pairs_equal_the_literal_formula(world):
    field, u = world.field(world.conditions(3), second_order=True), world.latent()
    own, tasks = tasks_of(field, u, 3, tasks="pairs")
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    assert len(tasks.vectors) == 6
    for (i, j), vector in zip(pairs, tasks.vectors, strict=True):
        expected = literal_pair(field, u, own.scales[:, 0], i, j)
        assert torch.allclose(vector, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dependence", FORMS)
@pytest.mark.parametrize("n", [2, 3, 4])
def test_rows_equal_the_sum_of_their_pairs(world, n, dependence):
    """Exact by linearity; in finite-difference form up to the form's own error O(k^2)."""
    field = world.field(world.conditions(n), second_order=dependence == "exact")
    u = world.latent(batch=2)
    rows = tasks_of(field, u, n, dependence)[1].vectors
    pairs = tasks_of(field, u, n, dependence, tasks="pairs")[1].vectors
    tolerance = 2e-2 if dependence == "finite_difference" else 1e-10
    for i in range(n):
        total = sum(pairs[i * (n - 1) : (i + 1) * (n - 1)])
        assert (rows[i] - total).norm() <= tolerance * total.norm()


@pytest.mark.parametrize("order", ["symmetric", "as_connected", "auto"])
@pytest.mark.parametrize("form", ["finite_difference", "mutual"])
def test_the_error_against_exact_falls_with_the_square_of_the_look_ahead(world, form, order):
    conditions, u = world.conditions(3), world.latent(batch=2)
    errors = []
    for k in (0.02, 0.01, 0.005):
        second = world.field(conditions, second_order=True)
        exact = tasks_of(second, u, 3, "exact", order=order, k=k)[1]
        found = tasks_of(world.field(conditions), u, 3, form, order=order, k=k)[1]
        assert torch.equal(exact.valid, found.valid)
        errors.append(
            max(
                float((a - b).norm() / a.norm())
                for a, b in zip(exact.vectors, found.vectors, strict=True)
            )
        )
    assert errors[0] < 0.05
    assert errors[1] < errors[0] / 3 and errors[2] < errors[1] / 3


def test_all_forms_agree_in_the_limit_of_no_look_ahead(world):
    conditions, u = world.conditions(3), world.latent()
    vectors = [
        tasks_of(world.field(conditions, second_order=True), u, 3, form, k=0.0)[1].vectors
        for form in FORMS
    ]
    for other in vectors[1:]:
        for a, b in zip(vectors[0], other, strict=True):
            assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def quadratic_field(matrices, targets, **options):
    def energy_of(matrix, target):
        def energy(image, region=None):
            difference = image.flatten(1) - target
            return 0.5 * ((difference @ matrix) * difference).sum(1)

        return energy

    conditions = [
        Condition(f"quadratic {i}", energy_of(m, t))
        for i, (m, t) in enumerate(zip(matrices, targets, strict=True))
    ]
    return EnergyField([], conditions, Meter(), **options)


@pytest.mark.parametrize("dependence", ["exact", "finite_difference"])
def test_quadratic_energies_equal_their_closed_form_in_both_second_order_forms(dependence):
    """For quadratics g_i is affine, so that the finite difference has no error at all."""
    generator = torch.Generator().manual_seed(3)
    size = 3 * 2 * 2
    roots = torch.randn(3, size, size, generator=generator, dtype=torch.float64)
    matrices = roots @ roots.transpose(1, 2) / size
    targets = torch.randn(3, size, generator=generator, dtype=torch.float64)
    field = quadratic_field(matrices, targets, second_order=dependence == "exact")
    u = torch.randn(1, 3, 2, 2, generator=generator, dtype=torch.float64)
    own, tasks = tasks_of(field, u, 3, dependence, tasks="pairs", k=0.3)
    flat = u.flatten()
    g = [lambda x, i=i: -own.scales[i, 0] * (matrices[i] @ (x - targets[i])) for i in range(3)]
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    for (i, j), vector in zip(pairs, tasks.vectors, strict=True):
        v = g[j](flat + 0.3 * g[i](flat))
        expected = g[i](flat) + v - 0.3 * own.scales[i, 0] * (matrices[i] @ v)
        assert torch.allclose(vector.flatten(), expected, rtol=1e-9, atol=1e-12)


def test_a_chain_as_connected_keeps_only_the_pairs_along_it(world):
    field, u = world.field(world.conditions(3)), world.latent()
    symmetric = tasks_of(field, u, 3, tasks="pairs")[1].vectors
    chained = tasks_of(field, u, 3, tasks="pairs", order="as_connected")[1]
    assert len(chained.vectors) == 3
    for a, b in zip(chained.vectors, (symmetric[0], symmetric[1], symmetric[3]), strict=True):
        assert torch.allclose(a, b)
    assert chained.ranks.T.tolist() == [[0, 1, 2]]


def test_auto_order_puts_the_condition_first_whose_look_ahead_helps_the_others_most(world):
    conditions, u = world.conditions(3), world.latent(batch=4)
    field = world.field(conditions)
    own, tasks = tasks_of(field, u, 3, "finite_difference", order="auto")
    for b in range(4):
        helps = []
        for i in range(3):
            ahead = field.at((u + K * own.vectors[i])[b : b + 1])
            here = field.at(u[b : b + 1])
            helps.append(
                sum(
                    float((own.scales[j, b] * (here.energies[j] - ahead.energies[j])).detach())
                    for j in range(3)
                    if j != i
                )
            )
        expected = sorted(range(3), key=lambda i: -helps[i])
        assert [int(tasks.ranks[i, b]) for i in expected] == [0, 1, 2]


def test_auto_order_equals_the_chain_connected_in_that_order(world):
    conditions, u = world.conditions(3), world.latent()
    ranks = tasks_of(world.field(conditions), u, 3, order="auto")[1].ranks[:, 0].tolist()
    order = sorted(range(3), key=lambda i: ranks[i])
    field = world.field([conditions[i] for i in order])
    point = field.at(u)
    own = condition_gradients(point, [1.0 + i for i in order])
    expected = dependent_tasks(
        field,
        point,
        own,
        dependence="finite_difference",
        tasks="rows",
        order="as_connected",
        look_ahead=K,
    )
    auto = tasks_of(world.field(conditions), u, 3, "finite_difference", order="auto")[1]
    kept = [v for v, valid in zip(auto.vectors, auto.valid[0], strict=True) if valid]
    assert len(kept) == 2
    for vector in expected.vectors:
        assert any(torch.allclose(vector, other, rtol=1e-9) for other in kept)


def test_a_condition_without_a_gradient_leaves_the_others_as_if_it_were_not_there(world):
    conditions = world.conditions(2)
    flat = Condition("flat", lambda image, region=None: image.flatten(1).sum(1) * 0.0)
    broken = Condition("broken", lambda image, region=None: image.flatten(1).sum(1) * torch.nan)
    u = world.latent()
    expected = tasks_of(world.field(conditions), u, 2, "finite_difference")[1].vectors
    for extra in (flat, broken):
        tasks = tasks_of(world.field([*conditions, extra]), u, 3, "finite_difference")[1]
        kept = [v for v, valid in zip(tasks.vectors, tasks.valid[0], strict=True) if valid]
        assert len(kept) == 2
        for a, b in zip(kept, expected, strict=True):
            assert torch.allclose(a, b)


def test_where_only_one_condition_has_a_gradient_the_task_is_its_own_gradient(world):
    (condition,) = world.conditions(1)
    flat = Condition("flat", lambda image, region=None: image.flatten(1).sum(1) * 0.0)
    own, tasks = tasks_of(world.field([condition, flat]), world.latent(), 2, "finite_difference")
    kept = [v for v, valid in zip(tasks.vectors, tasks.valid[0], strict=True) if valid]
    assert len(kept) == 1
    assert torch.equal(kept[0], own.vectors[0])
