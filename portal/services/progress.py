"""How far running attempts are: read from the blob store, kept in memory, never in the database."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace

from pydantic import ValidationError

from atelier.contract import keys
from atelier.contract.errors import StorageFailed
from atelier.contract.parts import ProgressState
from atelier.storage.base import BlobStore
from portal.services.ports import Clock

FRESH_SECONDS = 0.3
"""A snapshot younger than this is not read again."""

MEASURABLE = 0.03
"""Below this share of the whole an estimate of the rest is a guess."""

REMEMBERED = 2_000
"""Parts a board knows at most: a process that does not dispatch never hears that one has ended."""


@dataclass(frozen=True)
class Seen:
    """The newest progress of one attempt. `begun` is when its first progress was seen, `checked` when it
    was last looked for.
    """

    job: str
    attempt: int
    etag: str | None = None
    state: ProgressState | None = None
    begun: float = 0.0
    checked: float = 0.0
    stepped: tuple[float, float] | None = None
    """When its first step was seen, and how far it was then."""

    @property
    def fraction(self) -> float:
        """0..1: steps make up nearly all of it, decoding and storing the rest."""
        if self.state is None or not self.state.steps:
            return 0.0
        return 0.95 * min(1.0, self.state.step / self.state.steps)

    @property
    def pace(self) -> float | None:
        """How much of the whole it does in a second, from what was seen of its steps; None before that can be
        told.
        """
        if self.stepped is None:
            return None
        seconds, made = self.checked - self.stepped[0], self.fraction - self.stepped[1]
        return made / seconds if seconds > 0 and made >= MEASURABLE else None


class ProgressBoard:
    """Progress by part id. Any process may have one: it reads on demand what nobody else refreshed."""

    def __init__(self, store: BlobStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[str, Seen] = {}

    def refresh(self, job: str, part: str, attempt: int) -> Seen:
        """Look for newer progress of an attempt; what is known of it then."""
        with self._lock:
            known = self._seen.get(part)
        if known is None or known.attempt != attempt:
            known = Seen(job, attempt)
        now = self._clock.now()
        newer = self._read(keys.progress(job, part, attempt), known.etag)
        if newer is not None and (known.state is None or newer[0].seq > known.state.seq):
            known = replace(known, state=newer[0], etag=newer[1], begun=known.begun or now)
            if known.stepped is None and newer[0].step > 0:
                known = replace(known, stepped=(now, known.fraction))
        known = replace(known, checked=now)
        with self._lock:
            self._seen[part] = known
            while len(self._seen) > REMEMBERED:
                del self._seen[next(iter(self._seen))]
        return known

    def latest(self, job: str, part: str, attempt: int) -> Seen:
        """What is known of an attempt, read anew if nobody looked lately."""
        with self._lock:
            known = self._seen.get(part)
        if known is None or known.attempt != attempt or self._clock.now() - known.checked > FRESH_SECONDS:
            return self.refresh(job, part, attempt)
        return known

    def keep_only(self, parts: Iterable[str]) -> None:
        """Forget every part that is not among `parts`."""
        kept = set(parts)
        with self._lock:
            self._seen = {part: seen for part, seen in self._seen.items() if part in kept}

    def _read(self, key: str, etag: str | None) -> tuple[ProgressState, str] | None:
        try:
            found = self._store.get_if_changed(key, etag)
            return None if found is None else (ProgressState.model_validate_json(found[0]), found[1])
        except (ValidationError, StorageFailed):
            # Progress is a courtesy: a store that is slow for a moment must not end the work. The lease
            # decides.
            return None
