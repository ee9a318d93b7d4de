"""The conversation with the controller: one JSON object a line each way, and file contents as one compressed stream.

A long message comes compressed: a line `{"zlib": N}`, then N bytes, which are the line. Ten apps' manifest is 110 KB of
repetitions; ten times less of it is what a far-away host waits for.

The controller sends an empty line from time to time, also while a person has stopped its terminal's output. So a
connection that is dead, or a computer that sleeps, is known by its silence: neither reading nor writing waits for ever.
"""

from __future__ import annotations

import json
import os
import select
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploykit.agent.resource import Failed

Event = dict[str, Any]

SILENCE = float(os.environ.get("DEPLOYKIT_SILENCE", "60"))  # seconds without a byte: the controller is gone
FIRST = 600.0  # seconds until the request: the controller may still read sources, and holds up nothing

_PIECE = 1 << 16
_WHOLE = 4096  # bytes that a pipe takes at once when it says that it can be written to: PIPE_BUF, pipe(7)


class Gone(EOFError):
    """The controller is not there any more. The text says how that is known."""


class Tired(Gone):
    """No request came: the controller has begun us ahead, and was busy for longer than we wait."""


class _Input:
    """Standard input, by our own buffer: what is waited for has a limit."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._heard = time.monotonic()
        self.ended = False

    def line(self, limit: float = 0.0) -> bytes:
        """The next line that is not empty. Raises Gone."""
        while True:
            end = self._data.find(b"\n")
            if end < 0:
                self._fill(limit or SILENCE)
                continue
            found = bytes(self._data[: end + 1])
            del self._data[: end + 1]
            if found != b"\n":
                return found

    def exactly(self, length: int) -> bytes:
        """So many bytes. Raises Gone."""
        while len(self._data) < length:
            self._fill(SILENCE)
        found = bytes(self._data[:length])
        del self._data[:length]
        return found

    def silent(self) -> bool:
        """Whether nothing has come for so long that the controller must be gone. Empty lines are heard and dropped."""
        while not self.ended and select.select([0], [], [], 0)[0]:
            self._read()
        if not self._data.strip(b"\n"):
            self._data.clear()
        return not self.ended and time.monotonic() - self._heard > SILENCE

    def _fill(self, limit: float) -> None:
        if not self.ended and not select.select([0], [], [], limit)[0]:
            raise Gone(f"nothing came from the controller for {limit:g} s")
        if self.ended or not self._read():
            raise Gone("the connection was closed")

    def _read(self) -> bool:
        piece = os.read(0, _PIECE)
        self._data += piece
        self._heard = time.monotonic()
        self.ended = self.ended or not piece
        return bool(piece)


_input = _Input()


#: What says nothing that a program of an app has said, or that a secret could be in.
_PLAIN = frozenset({"attached", "end", "facts", "started", "tree", "want"})


def line(event: Event) -> bytes:
    """An event as it may leave the host, or be kept in a file: without a secret in it."""
    if event["event"] not in _PLAIN and (event["event"] != "plan" or event["changes"]):
        from deploykit.agent import masking  # much that a host with nothing to do does not need

        event = masking.masked(event)
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


def send(event: Event) -> None:
    """One event to the controller. Raises Gone."""
    write(line(event))


def write(data: bytes) -> None:
    """Bytes to the controller. Raises Gone when it reads no more, and is not heard of either."""
    at = 0
    while at < len(data):
        _, ready, broken = _writable(5.0)
        if broken:
            raise Gone("the connection was closed")
        if not ready:
            if _input.silent():
                raise Gone(f"the controller has not been heard of for {SILENCE:g} s, and reads nothing")
            continue
        try:
            at += os.write(1, data[at : at + _WHOLE])
        except OSError:
            raise Gone("the connection was closed") from None


def _writable(seconds: float) -> tuple[int, bool, bool]:
    poll = select.poll()
    poll.register(1, select.POLLOUT)
    found = poll.poll(min(seconds, SILENCE) * 1000)
    state = found[0][1] if found else 0
    return state, bool(state & select.POLLOUT), bool(state & (select.POLLERR | select.POLLHUP | select.POLLNVAL))


def listening() -> bool:
    """Whether anybody still reads what we send: the other end of a pipe or socket that is gone shows as an error."""
    poll = select.poll()
    poll.register(1, 0)  # standard output
    return not poll.poll(0) and not _input.silent()


def request() -> Event:
    """The first message. Raises Gone."""
    try:
        return receive(FIRST)
    except Gone as gone:
        if _input.ended:
            raise
        raise Tired(str(gone)) from None


def receive(limit: float = 0.0) -> Event:
    """One message from the controller; `limit` in seconds, 0: the usual one. Raises Gone."""
    message: Event = json.loads(_input.line(limit))
    if set(message) == {"zlib"}:
        message = json.loads(zlib.decompress(_input.exactly(message["zlib"])))
    return message


def receive_files(shas: list[str], sizes: dict[str, int], folder: Path) -> None:
    """Stores the contents named by `shas` in `folder`, each under its SHA-256, and checks that it is what it says."""
    import hashlib

    chunks = _inflate()
    spare = b""
    for sha in shas:
        place = folder / sha
        digest = hashlib.sha256()
        left = sizes[sha]
        with open(place, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            while left:
                if not spare:
                    spare = next(chunks)
                part, spare = spare[:left], spare[left:]
                digest.update(part)
                file.write(part)
                left -= len(part)
        if digest.hexdigest() != sha:
            place.unlink()
            raise Failed("a file changed while it was sent", sha, "deploy again")
    for _ in chunks:
        pass  # up to the end of the stream, so that the next line is a message again


def _inflate() -> Iterator[bytes]:
    """The pieces of one zlib stream. It comes as frames: a line with a length, then that many bytes; 0 ends it."""
    inflater = zlib.decompressobj()
    while length := int(_input.line()):
        piece = inflater.decompress(_input.exactly(length))
        if piece:
            yield piece
    piece = inflater.flush()
    if piece:
        yield piece
