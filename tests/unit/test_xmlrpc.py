"""Our XML-RPC beside the standard library's, each way, and over a socket."""

from __future__ import annotations

import socketserver
import threading
import xmlrpc.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xmlrpc.server import SimpleXMLRPCDispatcher, SimpleXMLRPCRequestHandler

import pytest

from deploykit.agent import xmlrpc as ours

VALUES: list[Any] = [
    "",
    "a <b> & \"c\" 'd' ]]> é \n end",
    0,
    -7,
    1.5,
    True,
    False,
    [],
    {},
    [[], [1, ["two"]], {"three": [3]}],
    [{"name": "blog-a", "pid": 12, "spawnerr": "", "nested": {"x": ["", 1]}}, {"name": "", "": "empty name"}],
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_answers_are_read_as_the_library_reads_them(value: Any) -> None:
    body = xmlrpc.client.dumps((value,), methodresponse=True)
    found = ours.answer(body.encode())
    assert found == value
    assert type(found) is type(value)


def test_a_string_may_come_without_its_tag() -> None:
    head, tail = b"<methodResponse><params><param>", b"</param></params></methodResponse>"
    assert ours.answer(head + b"<value>plain</value>" + tail) == "plain"
    assert ours.answer(head + b"<value></value>" + tail) == ""
    assert ours.answer(head + b"<value>\n <i4>4</i4>\n</value>" + tail) == 4


@pytest.mark.parametrize("arguments", [(), ("blog-a", False), ("a<&>\"'é", True)], ids=repr)
def test_calls_are_what_the_library_understands(arguments: tuple[str | bool, ...]) -> None:
    assert xmlrpc.client.loads(ours.request("supervisor.stop", arguments)) == (arguments, "supervisor.stop")


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"<a></a>", b"<params><value><int>x</int></value></params>", b"<struct></struct></a>"]
)
def test_what_is_no_answer_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(ours.Unexpected):
        ours.answer(body)


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer, SimpleXMLRPCDispatcher):
    """The standard library's server, on a Unix socket."""

    daemon_threads = True
    logRequests = False

    def __init__(self, place: Path) -> None:
        SimpleXMLRPCDispatcher.__init__(self)
        socketserver.UnixStreamServer.__init__(self, str(place), Handler)


class Handler(SimpleXMLRPCRequestHandler):
    """On a Unix socket."""

    rpc_paths = ("/RPC2",)
    disable_nagle_algorithm = False


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "socket"
    server = Server(place)
    server.register_function(lambda *arguments: [*arguments, "x" * 200_000], "echo")

    def refuse() -> None:
        raise xmlrpc.client.Fault(10, "BAD_NAME: é")

    server.register_function(refuse, "refuse")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield place
    server.shutdown()
    server.server_close()
    thread.join()


def test_it_talks_to_a_server(place: Path) -> None:
    assert ours.call(str(place), "echo", "é", True) == ["é", True, "x" * 200_000]


def test_a_refusal_has_its_number(place: Path) -> None:
    with pytest.raises(ours.Fault, match="BAD_NAME: é") as raised:
        ours.call(str(place), "refuse")
    assert raised.value.code == 10


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ours.call(str(tmp_path / "socket"), "echo")


@pytest.mark.parametrize(
    ("said", "what"),
    [
        (b"", "no answer"),
        (b"nonsense\r\n\r\n", "no answer"),
        (b"HTTP/1.0 401 Unauthorized\r\n\r\n<x/>", "401 Unauthorized"),
        (b"HTTP/1.0 200 OK\r\n\r\n<cut", "unclosed token"),
    ],
)
def test_who_answers_otherwise(tmp_path: Path, said: bytes, what: str) -> None:
    class Other(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(said)
            self.wfile.flush()
            self.request.shutdown(1)
            self.rfile.read()

    with socketserver.UnixStreamServer(str(tmp_path / "socket"), Other) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(ours.Unexpected, match=what):
            ours.call(str(tmp_path / "socket"), "echo")
        thread.join()
