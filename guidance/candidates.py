"""Candidates: several seeds are guided for their first steps, and the best one goes on.

Best of N asks for N whole pictures; what a picture will be is decided early.
"""

import math
from collections.abc import Sequence
from itertools import chain

from .means import known_mean
from .random_streams import seed_of
from .ranking import best_first, scores
from .trace import Candidate, Trace, rounded

__all__ = ["chosen", "early_steps", "put_into", "seeds_of"]

# The share of the steps after which candidates are compared.
SHARE = 0.25
# Seeds that JavaScript holds exactly: people type them in again.
SEED_BITS = 53


def early_steps(steps: int) -> int:
    """After how many of the sampler's steps candidates are compared: a quarter, at least one."""
    return max(1, math.ceil(SHARE * steps))


def seeds_of(seed: int, count: int) -> list[int]:
    """The seeds of all candidates: the run's own, and others that follow from it.

    Not the next ones: a seed that is counted up would meet the same candidates again.
    """
    others = (seed_of(f"candidate {number} {seed}", SEED_BITS) for number in range(1, count))
    return [seed, *others]


def chosen(seeds: Sequence[int], early: Sequence[Trace]) -> tuple[int, list[Candidate]]:
    """The place of the best candidate, and all of them.

    A batch is one candidate: the energies of its pictures are averaged. One comes last in which
    more pictures lack what a condition is about than in another; the others are compared by the
    pictures that have it.

    Args:
        seeds: one for each candidate.
        early: the traces of their first steps, which end with a clean latent.
    """
    found = [
        Candidate(seed, None, trace.final, trace.totals()["seconds"])
        for seed, trace in zip(seeds, early, strict=True)
    ]
    if not all(trace.final for trace in early):
        return 0, found
    weights = {facts.name: facts.weight for facts in early[0].conditions}
    lacking = [sum(map(math.isnan, chain(*trace.final.values()))) for trace in early]
    means = {
        name: [
            math.nan if mean is None or lacks > min(lacking) else mean
            for mean, lacks in zip(
                (known_mean(trace.final[name]) for trace in early), lacking, strict=True
            )
        ]
        for name in early[0].final
    }
    scored = scores(means, weights)
    for candidate, score in zip(found, scored, strict=True):
        candidate.score = rounded(score)
    return best_first(scored)[0], found


def put_into(trace: Trace, candidates: Sequence[Candidate], early: Sequence[Trace]) -> None:
    """Add the candidates, and what they cost, to the trace of the run that went on."""
    trace.candidates = list(candidates)
    if candidates[0].score is None:
        trace.warn("the candidates could not be compared, the first one went on: no energies")
    elif not any(math.isfinite(each.score or 0.0) for each in candidates):
        trace.warn(
            "the candidates could not be compared, the first one went on: what the conditions are "
            "about was not seen in any"
        )
    elif trace.settings.get("strength") and not any(map(_guided, early)):
        trace.warn(
            "begin the guidance within the first quarter of the steps (guide_start, and start of "
            "the conditions), or set candidates to 1: they were compared by that quarter, in which "
            "nothing guided them",
        )
    if not trace.cost:
        return
    if not all(each.cost for each in early):
        trace.cost = {}
        return
    extra = sum(each.cost["total"] * each.predictions for each in early) / trace.predictions
    total = trace.cost.pop("total")
    trace.cost |= {"candidates": rounded(extra), "total": rounded(total + extra)}


def _guided(trace: Trace) -> bool:
    return any(record.path != "measure" for record in trace.steps)
