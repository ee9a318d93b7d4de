"""One command on a host: what is written to it and read from it, with limits to how long the host may be silent."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

SILENCE = 60  # seconds without a sign of life, or without taking a byte, after which a host is given up
ASK = 15  # seconds of silence after which a host is asked whether it is there

_STEP = 5.0  # seconds between two looks at a silent connection
_ENDING = 20.0  # seconds from the end of its output until a command must have said how it ended
_PIECE = 1 << 16
_ERRORS = 1 << 20  # bytes of standard error that are read


class Silent(ConnectionError):
    """The host answers no more, or takes nothing more. The text says for how long."""


class Exchange(Protocol):
    """One command that runs on the host."""

    def write(self, data: bytes) -> None:
        """To its standard input."""

    def close_write(self) -> None:
        """No more input."""

    def read(self, deadline: float | None = None) -> bytes:
        """What came on its standard output, b"" at its end. Raises Silent, TimeoutError at `deadline` (monotonic)."""

    def finish(self) -> tuple[int, str]:
        """(exit status, standard error); -1 when the connection was lost before it ended."""


def lines(exchange: Exchange, longest: int, deadline: Callable[[], float | None] = lambda: None) -> Iterator[bytes]:
    """Standard output line by line, as it comes. Raises OverflowError for one that is longer than `longest` bytes."""
    rest = bytearray()
    while piece := exchange.read(deadline()):
        rest += piece
        if b"\n" in piece:
            *whole, last = bytes(rest).split(b"\n")
            rest = bytearray(last)
            for each in whole:
                yield each + b"\n"
        if len(rest) > longest:
            raise OverflowError(f"expected lines of at most {longest} bytes")
    if rest:
        yield bytes(rest)


class Channel:
    """A command over SSH. A silent host is asked whether it is there: its sshd answers, whatever is at work."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._channel.settimeout(_STEP)
        self._heard = time.monotonic()
        self._question: threading.Thread | None = None

    def write(self, data: bytes) -> None:
        at = 0
        taken = time.monotonic()
        while at < len(data):
            try:
                sent = self._channel.send(data[at : at + _PIECE])
            except TimeoutError:
                if time.monotonic() - taken > SILENCE:
                    raise Silent(f"the host has taken nothing for {SILENCE} s") from None
                continue
            except (OSError, EOFError):
                sent = 0
            if not sent:
                raise ConnectionError("the connection was lost")
            at += sent
            taken = time.monotonic()

    def close_write(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            self._channel.shutdown_write()

    def read(self, deadline: float | None = None) -> bytes:
        self._heard, self._question = time.monotonic(), None  # silence counts from now on
        while True:
            try:
                found = bytes(self._channel.recv(_PIECE))
            except TimeoutError:
                now = time.monotonic()
                if deadline is not None and now > deadline:
                    raise
                self._listen(now)
            except (OSError, EOFError):
                return b""
            else:
                return found

    def _listen(self, now: float) -> None:
        """After a while without a byte. Raises Silent."""
        if now - self._heard > SILENCE:
            raise Silent(f"the host has not answered for {SILENCE} s")
        if self._question is None:
            if now - self._heard > ASK:
                self._question = threading.Thread(target=self._ask, daemon=True)
                self._question.start()
        elif not self._question.is_alive():  # it has been answered
            self._heard, self._question = now, None

    def _ask(self) -> None:
        """A request that no server knows, and each must answer: RFC 4254, 4. OpenSSH's own keepalives are such."""
        with contextlib.suppress(Exception):  # then the connection is gone, and read() finds out
            self._channel.get_transport().global_request("keepalive@openssh.com", wait=True)

    def finish(self) -> tuple[int, str]:
        error = b""
        deadline = time.monotonic() + _ENDING
        while len(error) < _ERRORS and time.monotonic() < deadline:
            try:
                piece = self._channel.recv_stderr(_PIECE)
            except TimeoutError:
                continue
            except (OSError, EOFError):
                break
            if not piece:
                break
            error += piece
        ended = self._channel.status_event.wait(max(0.0, deadline - time.monotonic()))
        status = self._channel.exit_status if ended else -1
        with contextlib.suppress(OSError, EOFError):
            self._channel.close()
        return status, error.decode("utf-8", "replace")
