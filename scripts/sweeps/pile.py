"""The variants that wait, shared by the threads that have them made."""

import threading
from collections.abc import Mapping, Sequence

from .variations import Variant

__all__ = ["Pile"]


class Pile:
    """Who makes what: each variant is out with one host at a time, and comes back where it failed.

    Args:
        variants: in the order in which they are taken.
        hosts: names of all.
        tries: how often a variant is tried before it is given up.
        found: digest of a variant to the host that has it already, from an earlier sweep.
    """

    def __init__(
        self,
        variants: Sequence[Variant],
        hosts: Sequence[str],
        tries: int,
        found: Mapping[str, str],
    ):
        self._waiting = list(variants)
        self._out: dict[str, Variant] = {}
        self._tried: dict[str, list[str]] = {}  # digest to hosts
        self._up = set(hosts)
        self._tries, self._found = tries, found
        self._changed = threading.Condition()
        self.stopped = threading.Event()

    def take(self, host: str) -> Variant | None:
        """A variant for this host, which is up; None when there is nothing left to do.

        Waits while others are at the last ones: one may come back.
        """
        with self._changed:
            self._up.add(host)
            while not self.is_over():
                if variant := self._next_for(host):
                    self._waiting.remove(variant)
                    self._out[host] = variant
                    return variant
                self._changed.wait()
            return None

    def settle(self, host: str) -> None:
        """The variant of this host needs nobody any more."""
        with self._changed:
            self._out.pop(host, None)
            self._changed.notify_all()

    def give_back(self, host: str) -> bool:
        """Let others try the variant of this host; False if it has been tried often enough."""
        with self._changed:
            variant = self._out.pop(host)
            tried = self._tried.setdefault(variant.digest, [])
            tried.append(host)
            again = len(tried) < self._tries
            if again:
                self._waiting.insert(0, variant)
            self._changed.notify_all()
            return again

    def down(self, host: str) -> None:
        """This host does not answer: what it has failed in or begun is for the others."""
        with self._changed:
            self._up.discard(host)
            self._changed.notify_all()

    def none_is_up(self) -> bool:
        """Whether no host answers."""
        return not self._up

    def is_over(self) -> bool:
        """Whether there is nothing left to do."""
        return self.stopped.is_set() or not (self._waiting or self._out)

    def stop(self) -> dict[str, Variant]:
        """Give out nothing any more; what each host is at."""
        with self._changed:
            self.stopped.set()
            self._changed.notify_all()
            return dict(self._out)

    def _next_for(self, host: str) -> Variant | None:
        """What this host has begun or made already comes before anything new."""
        fitting = (each for each in self._waiting if self._fits(each, host))
        if not self._found:
            return next(fitting, None)
        return min(fitting, key=lambda each: self._found.get(each.digest) != host, default=None)

    def _fits(self, variant: Variant, host: str) -> bool:
        begun_at = self._found.get(variant.digest, host)
        if begun_at != host and begun_at in self._up and begun_at not in self._tries_of(variant):
            return False
        tried = self._tries_of(variant)
        return host not in tried or self._up <= set(tried)

    def _tries_of(self, variant: Variant) -> Sequence[str]:
        return self._tried.get(variant.digest, ())
