"""XML-RPC over a Unix socket, as much of it as supervisor speaks: http://xmlrpc.com/spec.md

The standard library's client brings HTTP, TLS and mail along. They were a quarter of the time that the agent takes to
start, and on a host with nothing to do it puts a single question.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any
from xml.parsers import expat

_TIMEOUT = 120  # seconds


class Fault(Exception):
    """The other side's refusal, with its number for the reason."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Unexpected(Exception):
    """What answered does not speak XML-RPC with us."""


def call(path: str, method: str, *arguments: str | bool) -> Any:
    """The answer of the server that listens at `path`. Raises Fault, Unexpected, OSError when nobody is there."""
    body = request(method, arguments)
    head = f"POST /RPC2 HTTP/1.0\r\nHost: localhost\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    received = bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_TIMEOUT)
        connection.connect(path)
        connection.sendall(head.encode("ascii") + body)
        while piece := connection.recv(1 << 16):
            received += piece
    said, _, answered = bytes(received).partition(b"\r\n\r\n")
    status = said.split(b"\r\n", 1)[0].split(b" ", 2)
    if len(status) < 2 or not status[0].startswith(b"HTTP/") or status[1] != b"200":
        raise Unexpected(b" ".join(status[1:]).decode("latin-1") or "no answer")
    return answer(answered)


def request(method: str, arguments: Sequence[str | bool]) -> bytes:
    """A call's body."""
    values = "".join(f"<param><value>{_written(each)}</value></param>" for each in arguments)
    call = f"<methodCall><methodName>{method}</methodName><params>{values}</params></methodCall>"
    return b"<?xml version='1.0'?>" + call.encode()


def _written(value: str | bool) -> str:
    if isinstance(value, bool):
        return f"<boolean>{value:d}</boolean>"
    text = value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"<string>{text}</string>"


def answer(body: bytes) -> Any:
    """The value that an answer's body holds. Raises Fault, Unexpected."""
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    parser.CharacterDataHandler = reader.text.append
    try:
        parser.Parse(body, True)
        (value,) = reader.values
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise Unexpected(str(error)) from None
    if reader.fault:
        raise Fault(value["faultCode"], value["faultString"])
    return value


class _Reader:
    """Puts values together from the inside: what an element held when it ends is what lies above its mark."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.text: list[str] = []
        self.fault = False
        self._marks: list[int] = []
        self._plain = False  # whether a <value> has held nothing but text so far, which then is a string

    def start(self, tag: str, _: object) -> None:
        self.text.clear()
        self._plain = tag == "value"
        if tag in ("array", "struct"):
            self._marks.append(len(self.values))

    def end(self, tag: str) -> None:
        text = "".join(self.text)
        if tag in ("string", "name") or (tag == "value" and self._plain):
            self.values.append(text)
        elif tag in ("int", "i4"):
            self.values.append(int(text))
        elif tag == "boolean":
            self.values.append(text.strip() == "1")
        elif tag == "double":
            self.values.append(float(text))
        elif tag == "array":
            mark = self._marks.pop()
            self.values[mark:] = [self.values[mark:]]
        elif tag == "struct":
            mark = self._marks.pop()
            held = self.values[mark:]
            self.values[mark:] = [dict(zip(held[::2], held[1::2], strict=True))]
        elif tag == "fault":
            self.fault = True
        self._plain = False
        self.text.clear()
