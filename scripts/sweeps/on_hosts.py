"""A sweep on running hosts, with one thread for each: they differ in speed, and some fail."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from api_client import Server

from .pile import Pile
from .runs import TROUBLES, Failed, Made, answers, cancel, made_by
from .variations import Variant

__all__ = ["ANSWER_SECONDS", "SweepStoppedError", "made_on_hosts"]

# Seconds without any answer after which a host counts as frozen. One that computes answers in well
# under one of them.
ANSWER_SECONDS = 20.0
# Seconds before a host that is down or has failed is asked again, doubled every time.
FIRST_REST, LONGEST_REST = 1.0, 60.0
LOOK_SECONDS = 0.5
# Prompts of a host's history that are looked through for what an earlier sweep left there.
RECENT = 100


class SweepStoppedError(RuntimeError):
    """The sweep cannot go on; what is made is kept."""


def made_on_hosts(
    variants: Sequence[Variant],
    addresses: Sequence[str],
    patience: float,
    tries: int,
    tell: Callable[[str], None],
) -> Iterator[Made | Failed]:
    """Each variant once, in the order in which they end.

    A host that is gone or frozen, or tells no progress for ``patience`` seconds, is left until it
    answers again, and its variant goes to another one. When the iterator is closed, hosts drop
    theirs.

    Args:
        tell: is told of every failure, also of a variant that another host makes then.

    Raises:
        SweepStoppedError: no host has answered for ``patience`` seconds.
    """
    servers = {
        address: Server(address, ANSWER_SECONDS, ANSWER_SECONDS)
        for address in dict.fromkeys(address.rstrip("/") for address in addresses)
    }
    pile = Pile(variants, list(servers), tries, _found(servers, variants))
    results: queue.Queue[Made | Failed | str | Exception] = queue.Queue()
    for server in servers.values():
        # A daemon: one that waits for a frozen host must not keep a stopped sweep alive.
        threading.Thread(target=_serve, args=(server, pile, patience, results), daemon=True).start()
    try:
        yield from _awaited(len(variants), results, pile, patience, tell)
    finally:
        _cancel_all(servers, pile.stop())


def _awaited(
    count: int,
    results: queue.Queue,
    pile: Pile,
    patience: float,
    tell: Callable[[str], None],
) -> Iterator[Made | Failed]:
    up_at = time.monotonic()
    while count:
        with suppress(queue.Empty):
            outcome = results.get(timeout=LOOK_SECONDS)
            if isinstance(outcome, Exception):
                raise outcome
            if isinstance(outcome, str):
                tell(outcome)
                continue
            yield outcome
            count -= 1
        if not pile.none_is_up():
            up_at = time.monotonic()
        elif time.monotonic() - up_at > patience:
            raise SweepStoppedError(f"no ComfyUI has answered for {patience:.0f} s")


def _found(servers: dict[str, Server], variants: Sequence[Variant]) -> dict[str, str]:
    """Digest to the host that has the variant already: an earlier sweep ended before it did."""
    wanted = {variant.prompt_id: variant.digest for variant in variants}
    found: dict[str, str] = {}
    for address, server in servers.items():
        with suppress(*TROUBLES):
            ids = [entry[1] for entries in server.get("/queue").values() for entry in entries]
            ids += list(server.get(f"/history?max_items={RECENT}"))
            found |= {wanted[prompt_id]: address for prompt_id in ids if prompt_id in wanted}
    return found


def _serve(server: Server, pile: Pile, patience: float, results: queue.Queue) -> None:
    try:
        _make_all(server, pile, patience, results)
    except Exception as error:  # nobody expects it: the one who waits shall know
        results.put(error)


def _make_all(server: Server, pile: Pile, patience: float, results: queue.Queue) -> None:
    """Have one host make variants until none is left."""
    host, rest, up = server.address, FIRST_REST, True
    while not pile.is_over():
        if not answers(server):
            if up:
                results.put(f"{host}: does not answer; it is asked again now and then")
            up = False
            pile.down(host)
            rest = _rested(pile, min(rest, patience / 4.0))
            continue
        up = True
        variant = pile.take(host)
        if variant is None:
            return
        try:
            made = made_by(server, variant, patience, pile.stopped)
        except TROUBLES as error:
            if pile.stopped.is_set():
                return
            if isinstance(error, OSError):
                pile.down(host)
            results.put(f"{host}: {error}")
            if not pile.give_back(host):
                results.put(Failed(variant, host, str(error)))
            cancel(server, variant)
            rest = _rested(pile, min(rest, patience / 4.0))
            continue
        pile.settle(host)
        results.put(made)
        rest = FIRST_REST


def _rested(pile: Pile, seconds: float) -> float:
    """Wait, shorter if the sweep ends; return how long the next rest is."""
    pile.stopped.wait(seconds)
    return min(LONGEST_REST, 2.0 * seconds)


def _cancel_all(servers: dict[str, Server], out: dict[str, Variant]) -> None:
    """Tell all hosts at once; a frozen one is not waited for."""
    threads = [
        threading.Thread(target=cancel, args=(servers[host], variant), daemon=True)
        for host, variant in out.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(ANSWER_SECONDS)
