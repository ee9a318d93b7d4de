"""The conversation with the controller: one JSON object a line each way, and file contents as one compressed stream.

A long message comes compressed: a line `{"zlib": N}`, then N bytes, which are the line. Ten apps' manifest is 110 KB of
repetitions; ten times less of it is what a far-away host waits for.
"""

from __future__ import annotations

import json
import os
import select
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploykit.agent.resource import Failed

Event = dict[str, Any]


def send(event: Event) -> None:
    """One event to the controller."""
    sys.stdout.write(json.dumps(event, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def listening() -> bool:
    """Whether anybody still reads what we send: the other end of a pipe or socket that is gone shows as an error."""
    poll = select.poll()
    poll.register(1, 0)  # standard output
    return not poll.poll(0)


def receive() -> Event:
    """One message from the controller. Raises EOFError when it is gone."""
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        raise EOFError("the connection was closed")
    message: Event = json.loads(line)
    if set(message) == {"zlib"}:
        data = sys.stdin.buffer.read(message["zlib"])
        if len(data) != message["zlib"]:
            raise EOFError("the connection was closed")
        message = json.loads(zlib.decompress(data))
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
    while True:
        header = sys.stdin.buffer.readline()
        if not header.endswith(b"\n"):
            raise EOFError("the connection was closed while files were sent")
        length = int(header)
        if length == 0:
            break
        data = sys.stdin.buffer.read(length)
        if len(data) != length:
            raise EOFError("the connection was closed while files were sent")
        piece = inflater.decompress(data)
        if piece:
            yield piece
    piece = inflater.flush()
    if piece:
        yield piece
