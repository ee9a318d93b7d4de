"""Visitors of the ledger, bounded in number and time: what each was told is kept, to be compared with what is there."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from dataclasses import dataclass, field

from .ledger import DOMAIN

RATE = 15  # requests a second
VISITORS = 6  # each one waits for its answer before it asks again
LONGEST = 300  # seconds of load, whatever happens


@dataclass
class Load:
    """Half of the requests read the page, half add a row, whose number no other request has."""

    address: str
    numbers: itertools.count[int]
    accepted: list[int] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    good: list[float] = field(default_factory=list)
    pages: set[str] = field(default_factory=set)

    def __enter__(self) -> Load:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._turns = itertools.count()
        self.began = time.monotonic()
        self._threads = [threading.Thread(target=self._visit, daemon=True) for _ in range(VISITORS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def now(self) -> float:
        """Seconds since the first request."""
        return time.monotonic() - self.began

    def outage(self) -> float:
        """Seconds of the longest time in which no request was answered well."""
        return max((later - earlier for earlier, later in itertools.pairwise([0.0, *sorted(self.good)])), default=0.0)

    def _visit(self) -> None:
        while not self._stop.is_set() and self.now < LONGEST:
            with self._lock:
                turn = next(self._turns)
            if self._stop.wait(max(0.0, turn / RATE - self.now)):
                return
            number = next(self.numbers) if turn % 2 else None
            asked = self.now
            try:
                self._ask(number)
            except (OSError, http.client.HTTPException, ValueError) as error:
                what = "the page" if number is None else f"row {number}"
                with self._lock:
                    self.lost.append(f"{asked:.2f} to {self.now:.2f} s, {what}: {error!r}")
            else:
                with self._lock:
                    self.good.append(self.now)

    def _ask(self, number: int | None) -> None:
        """One request over a connection of its own, as another visitor's is. Raises ValueError for a wrong answer."""
        connection = http.client.HTTPConnection(self.address, 80, timeout=30)
        try:
            body = None if number is None else str(number)
            connection.request("GET" if number is None else "POST", "/", body, {"Host": DOMAIN})
            answer = connection.getresponse()
            text = answer.read().decode()
            if number is None:
                if answer.status != 200 or not text.startswith("version "):
                    raise ValueError(f"{answer.status} {text[:120]}")
                self.pages.add(text)
            elif answer.status != 201 or text != str(number):
                raise ValueError(f"{answer.status} {text[:120]}")
            else:
                self.accepted.append(number)
        finally:
            connection.close()
