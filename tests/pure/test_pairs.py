"""Which pairs take part: every order against its definition, with conditions that have none."""

import pytest
import torch

from zmagic.guidance.pairs import candidates, fixed_ranks, follows, groups, ranks_by

N, BATCH = 4, 5
MERIT = torch.rand(N, BATCH, generator=torch.Generator().manual_seed(1))
VALID = torch.rand(N, BATCH, generator=torch.Generator().manual_seed(2)) > 0.3


def ranks_of(order):
    return ranks_by(MERIT) if order == "auto" else fixed_ranks(N, order, VALID)


def counts(order, i, j, b) -> bool:
    """Return whether pair (i, j) of sample b takes part, condition i having a gradient or not."""
    behind = {"symmetric": i != j, "as_connected": i < j, "auto": MERIT[i, b] > MERIT[j, b]}
    return bool(behind[order]) and bool(VALID[j, b])


@pytest.mark.parametrize("order", ["symmetric", "as_connected", "auto"])
def test_pairs_are_those_of_the_order(order):
    pairs = follows(ranks_of(order), VALID, order)
    for i in range(N):
        for j in range(N):
            for b in range(BATCH):
                assert pairs[i, j, b] == counts(order, i, j, b)


@pytest.mark.parametrize("order", ["symmetric", "as_connected", "auto"])
def test_every_pair_is_among_the_candidates(order):
    pairs, known = follows(ranks_of(order), VALID, order), candidates(N, order)
    assert {(i, j) for i, j in pairs.any(2).nonzero().tolist()} <= {
        (i, j) for i, targets in known.items() for j in targets
    }


@pytest.mark.parametrize("tasks", ["rows", "pairs"])
def test_groups_divide_the_targets(tasks):
    targets = follows(ranks_of("auto"), VALID, "auto")[0]
    parts = groups(targets, [1, 2, 3], tasks)
    assert torch.equal(torch.stack(parts).sum(0), targets.long())  # each pair in one of them
    assert len(parts) == (1 if tasks == "rows" else 3)
