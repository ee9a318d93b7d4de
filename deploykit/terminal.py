"""A session with a program on a host: our standard streams joined to it, as `ssh` and `ssh -t` do.

With a terminal on our side it is put into raw mode, so that each key goes to the program there: Ctrl-C is the
program's, arrows and passwords work, and the size of the window and its changes are passed on. Without one, standard
input is passed through to its end, and nothing that is printed is changed.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from typing import Any, Protocol

_PIECE = 1 << 16  # bytes
_PATIENCE = 0.02  # seconds until what could not be sent, or an exit status, is asked for again
_BROKEN_PIPE, _HANGUP = 128 + signal.SIGPIPE, 128 + signal.SIGHUP
_SIGNALS = (signal.SIGWINCH, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Channel(Protocol):
    """A running program: paramiko's Channel, as far as it is needed here."""

    eof_received: bool
    closed: bool

    def fileno(self) -> int: ...
    def recv_ready(self) -> bool: ...
    def recv(self, nbytes: int, /) -> bytes: ...
    def recv_stderr_ready(self) -> bool: ...
    def recv_stderr(self, nbytes: int, /) -> bytes: ...
    def send_ready(self) -> bool: ...
    def send(self, s: bytes, /) -> int: ...
    def shutdown_write(self) -> None: ...
    def exit_status_ready(self) -> bool: ...
    def recv_exit_status(self) -> int: ...
    def resize_pty(self, width: int = ..., height: int = ...) -> None: ...
    def close(self) -> None: ...


def present() -> bool:
    """Whether a person sits at both ends of our standard streams; else a program's own terminal would only disturb."""
    return os.isatty(0) and os.isatty(1)


def size() -> tuple[int, int]:
    """(columns, rows) of the terminal."""
    try:
        columns, rows = os.get_terminal_size(1)
    except OSError:
        columns, rows = 0, 0
    return columns or 80, rows or 24


def join(channel: Channel, *, pty: bool, first: bytes = b"", interrupt: Callable[[], None] = lambda: None) -> int:
    """Joins our streams to the program until it has ended; its exit status, -1 when the connection was lost.

    `first` is sent before standard input. `interrupt` passes Ctrl-C on where there is no terminal there to do it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with _raw() if pty else contextlib.nullcontext(), _signals() as (wake, seen):
        session = _Session(channel, pty, first, wake, seen, interrupt)
        try:
            return session.run()
        except BrokenPipeError:  # whoever read what we print has had enough (`| head`)
            channel.close()
            return _BROKEN_PIPE


class _Session:
    def __init__(
        self, channel: Channel, pty: bool, first: bytes, wake: int, seen: list[int], interrupt: Callable[[], None]
    ) -> None:
        self._channel, self._pty, self._waiting = channel, pty, first
        self._wake, self._seen, self._interrupt = wake, seen, interrupt
        self._open = _is_open(0)  # standard input has not ended
        self._told = False  # that it has
        self._escape = _Escape()

    def run(self) -> int:
        ended = False
        while True:
            ended = ended or self._output()
            if ended and self._channel.exit_status_ready():
                return self._channel.recv_exit_status()
            self._send()
            reading = [self._wake]
            if not ended:
                reading.append(self._channel.fileno())
            if self._open and not self._waiting:
                reading.append(0)
            ready, _, _ = select.select(reading, [], [], _PATIENCE if self._waiting or ended else None)
            if self._wake in ready and (status := self._signalled()) is not None:
                return status
            if 0 in ready and self._read():
                self._channel.close()
                return _HANGUP

    def _output(self) -> bool:
        """Writes what has come; whether there will be no more."""
        ended = self._channel.eof_received or self._channel.closed  # asked before: what came until then is there
        while self._channel.recv_ready():
            _write(1, self._channel.recv(_PIECE))
        while self._channel.recv_stderr_ready():
            _write(2, self._channel.recv_stderr(_PIECE))
        return ended

    def _send(self) -> None:
        """As much as the program takes now: to wait for it while it waits for us to read would never end."""
        try:
            while self._waiting and self._channel.send_ready():
                self._waiting = self._waiting[self._channel.send(self._waiting) :]
            if not (self._open or self._waiting or self._told):
                self._told = True
                self._channel.shutdown_write()
        except OSError:  # it has ended: its exit status says how
            self._waiting, self._open, self._told = b"", False, True

    def _read(self) -> bool:
        """Takes what was typed; whether the person wants to leave."""
        try:
            data = os.read(0, _PIECE)
        except OSError:  # the terminal is gone
            data = b""
        self._open = bool(data)
        self._waiting = self._escape.filter(data) if self._pty else data
        return self._escape.leaves

    def _signalled(self) -> int | None:
        os.read(self._wake, _PIECE)
        while self._seen:
            number = self._seen.pop(0)
            if number == signal.SIGWINCH:
                if self._pty:
                    with contextlib.suppress(OSError):
                        self._channel.resize_pty(*size())
                continue
            if not self._pty:
                self._interrupt()
            self._channel.close()
            return 128 + number
        return None


class _Escape:
    """Enter, `~`, `.` leaves a session that does not answer any more, as in ssh: Ctrl-C is the program's."""

    def __init__(self) -> None:
        self.leaves = False
        self._begun = True  # at the beginning of a line
        self._held = False  # a tilde there, which is sent when something else follows

    def filter(self, data: bytes) -> bytes:
        """What of the typed bytes is the program's."""
        found = bytearray()
        for byte in data:
            if self._held:
                self._held = False
                if byte == ord("."):
                    self.leaves = True
                    break
                found += b"" if byte == ord("~") else b"~"
                self._begun = False
            if self._begun and byte == ord("~"):
                self._held, self._begun = True, False
                continue
            found.append(byte)
            self._begun = byte in b"\r\n"
        return bytes(found)


def _is_open(handle: int) -> bool:
    try:
        os.fstat(handle)
    except OSError:
        return False
    return True


def _write(handle: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(handle, data) :]
        except BlockingIOError:  # somebody who shares our terminal has told it not to block
            select.select([], [handle], [], 1)


@contextlib.contextmanager
def _raw() -> Iterator[None]:
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0, termios.TCSADRAIN)  # what was typed ahead stays
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _signals() -> Iterator[tuple[int, list[int]]]:
    """(a pipe that can be read when a signal has come, those that have come): handled where nothing is half done."""
    wake, bell = os.pipe()
    os.set_blocking(bell, False)
    seen: list[int] = []

    def note(number: int, frame: Any) -> None:
        seen.append(number)
        with contextlib.suppress(BlockingIOError):
            os.write(bell, b"!")

    before = {each: signal.signal(each, note) for each in _SIGNALS}
    try:
        yield wake, seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(wake)
        os.close(bell)
