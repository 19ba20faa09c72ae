"""What guidance costs in plain evaluations of the model: the counts of the engine, weighed."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from zmagic.guidance.evaluation import DENOISER
from zmagic.guidance.settings import PRESETS

from .evaluations import DECODER, STEPS, Evaluations, evaluations
from .operations import Work
from .random_models import Architecture
from .subjects import NETWORKS, decoder_work, decoders_of, denoiser_work, network_work

__all__ = ["Guidance", "Prices", "Shares", "guidance_of", "prices", "report"]

GIB = 2**30


@dataclass(frozen=True)
class Shares:
    """Operations as multiples of a plain step or picture, by what takes them."""

    model: float
    decoder: float
    networks: float

    @property
    def total(self) -> float:
        return self.model + self.decoder + self.networks

    def __str__(self) -> str:
        parts = " + ".join(map(_figure, (self.model, self.decoder, self.networks)))
        return f"{_figure(self.total)} ({parts})"


@dataclass(frozen=True)
class Prices:
    """The work that one run of each part takes, for a picture of one model."""

    model: str
    side: int
    denoiser: Work
    decoders: Mapping[str, Work]
    networks: Mapping[str, Work]

    def shares(self, runs: Mapping, decoder: str, steps: int) -> Shares:
        """Return what ``runs`` take, in plain samplings of ``steps`` evaluations of the model.

        Args:
            runs: the numbers of forwards and backwards, as in ``Evaluations``; the conditions take
                the networks in turn.
        """
        networks = list(self.networks.values())
        taken: Counter[str] = Counter()
        for (part, way), number in runs.items():
            if part == DENOISER:
                share, work = "model", self.denoiser
            elif part == DECODER:
                share, work = "decoder", self.decoders[decoder]
            else:
                share, work = "networks", networks[part % len(networks)]
            taken[share] += number * getattr(work, way)
        plain = steps * self.denoiser.forward
        return Shares(*(taken[share] / plain for share in ("model", "decoder", "networks")))


@dataclass(frozen=True)
class Guidance:
    """Multiples of one preset with one decoder and a number of conditions.

    A plain picture is its evaluations of the model: the text encoder and the last decode, which
    every picture takes, are left out on both sides.
    """

    model: str
    preset: str
    decoder: str
    conditions: int
    step: Shares
    picture: Shares

    def plain(self) -> dict:
        """Return the multiples as numbers and names for a file."""
        both = {"step": self.step, "picture": self.picture}
        return asdict(self) | {k: asdict(v) | {"total": v.total} for k, v in both.items()}


def prices(architectures: Iterable[Architecture]) -> list[Prices]:
    """Count all parts once."""
    networks = {name: network_work(name) for name in NETWORKS}
    return [
        Prices(
            kind.title,
            kind.side,
            denoiser_work(kind),
            {name: decoder_work(name, kind) for name in decoders_of(kind)},
            networks,
        )
        for kind in architectures
    ]


def guidance_of(
    counted: Sequence[Prices], presets: Sequence[str], numbers: Sequence[int], steps: int = STEPS
) -> list[Guidance]:
    """All combinations of models, presets, decoders and numbers of conditions, in so many steps."""
    made = {(p, n): evaluations(PRESETS[p], n, steps) for p in presets for n in numbers}
    return [
        _guidance(price, preset, decoder, number, found, steps)
        for price in counted
        for decoder in price.decoders
        for (preset, number), found in made.items()
    ]


def _guidance(
    price: Prices, preset: str, decoder: str, number: int, found: Evaluations, steps: int
) -> Guidance:
    step = price.shares(found.step, decoder, 1)
    picture = price.shares(found.picture, decoder, steps)
    return Guidance(price.model, preset, decoder, number, step, picture)


def report(
    counted: Sequence[Prices], rows: Sequence[Guidance], steps: int = STEPS
) -> Iterator[str]:
    """Lines of Markdown: what each part takes, and for each model a picture and a step."""
    yield (
        "| one picture | forward, 10^9 | backward, 10^9 | saved for it, GiB | by `small` | "
        "in tiles |"
    )
    yield "|---|---|---|---|---|---|"
    for price in counted:
        yield _work_line(f"{price.model}, {price.side} px", price.denoiser)
        for name, work in price.decoders.items():
            yield _work_line(f"{price.model}, {name}", work)
    for name, work in counted[0].networks.items():
        yield _work_line(name, work)
    yield ""
    yield "In plain ones; in brackets: model + decoder + attribute networks. n: conditions."
    for price in counted:
        for title, what in ((f"a picture of {steps} steps", "picture"), ("a guided step", "step")):
            yield ""
            yield from _table(
                f"{price.model}: {title}", what, [row for row in rows if row.model == price.model]
            )


def _work_line(name: str, work: Work) -> str:
    figures = (work.forward / 1e9, work.backward / 1e9)
    cells = [f"{figure:,.0f}" for figure in figures]
    saved = (work.saved, work.checkpointed, work.tiled)
    cells += ["" if each is None else f"{each / GIB:.2f}" for each in saved]
    return f"| {name} | {' | '.join(cells)} |"


def _table(title: str, what: str, rows: Sequence[Guidance]) -> Iterator[str]:
    numbers = list(dict.fromkeys(row.conditions for row in rows))
    yield f"| {title} | {' | '.join(f'n = {number}' for number in numbers)} |"
    yield "|---|" + "---|" * len(numbers)
    cells: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        cells.setdefault((row.preset, row.decoder), []).append(str(getattr(row, what)))
    for (preset, decoder), line in cells.items():
        yield f"| `{preset}`, {decoder} | {' | '.join(line)} |"


def _figure(value: float) -> str:
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"
