"""Checks of a release, asked of a real web server on a socket of this machine."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from deploykit.agent import checks, visits
from deploykit.agent.values import Check

PAGE = """<!doctype html><link rel="stylesheet" href="/static/a.css?v=1"><link rel=icon href=/no.ico>
<script src="b.js"></script><script src="https://cdn.example/x.js"></script>
<script src="//blog.example/c.js"></script><link REL="Preload Stylesheet" href="/static/a.css?v=1"><p>Grüße"""


class Handler(http.server.BaseHTTPRequestHandler):
    """Pages by their path; /ws accepts a WebSocket, /fake says so without the proof."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(f"{self.headers['Host']} {self.headers['X-Forwarded-Proto']} {self.path}")
        key = self.headers["Sec-WebSocket-Key"]
        if self.path in ("/ws", "/fake") and key:
            proof = base64.b64encode(hashlib.sha1(f"{key}{visits._WEBSOCKET}".encode()).digest()).decode()
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.send_header("Sec-WebSocket-Accept", proof if self.path == "/ws" else "x")
            self.end_headers()
            return
        if self.path == "/endless":
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    time.sleep(0.02)
        status, body = {
            "/": (200, PAGE),
            "/json": (200, '{"database": {"ok": true, "names": ["a", "b"]}, "n": 1.5}'),
            "/moved": (302, ""),
            "/deep": (200, "[" * 100_000),
            "/broken": (500, "Traceback: the moon"),
        }.get(self.path, (404, "nothing"))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def address_string(self) -> str:
        return ""

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def place(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "web.sock")
    with socketserver.ThreadingUnixStreamServer(path, Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield path
        server.shutdown()


@pytest.mark.parametrize(
    ("check", "wrong"),
    [
        (Check("/"), ""),
        (Check("/moved"), ""),
        (Check("/", text="Grüße"), ""),
        (Check("/", text="Goodbye"), "has no 'Goodbye' in its body"),
        (Check("/broken"), "answered 500 instead of 200 to 399"),
        (Check("/broken", statuses=(500,)), ""),
        (Check("/none", statuses=(200, 204)), "answered 404 instead of 200 or 204"),
        (Check("/json", json=(("database.ok", "true"), ("database.names.1", '"b"'), ("n", "1.5"))), ""),
        (Check("/json", json=(("database.ok", "false"),)), "says database.ok is true instead of false"),
        (Check("/json", json=(("database.ok.deeper", "1"),)), "has no database.ok.deeper in its JSON"),
        (Check("/", json=(("a", "1"),)), "is no JSON"),
        (Check("/deep", json=(("a", "1"),)), "is no JSON"),
        (Check("/ws", websocket=True), ""),
        (Check("/", websocket=True), "answered 200 instead of 101"),
    ],
)
def test_answers(place: str, check: Check, wrong: str) -> None:
    assert checks._answer(check, place, visits.Front())[0] == wrong


def test_host_and_scheme_are_those_of_the_check(place: str) -> None:
    checks._answer(Check("/x?y=1", host="blog.example", scheme="https"), place, visits.Front())
    assert Handler.asked[-1] == "blog.example https /x?y=1"


def test_a_handshake_without_proof_is_none(place: str) -> None:
    with pytest.raises(visits.HTTPException, match="RFC 6455"):
        visits.handshake(place, "/fake", "blog.example", "http", 5, visits.Front())


def test_what_a_page_links_from_its_own_site() -> None:
    assert checks.linked(PAGE, "http://blog.example/posts/1") == ["/static/a.css?v=1", "/posts/b.js", "/c.js"]


def test_what_is_no_url_is_left_out_and_the_rest_is_asked_for_as_browsers_do() -> None:
    page = '<script src="//["></script><script src="/stàtic/a b%20c.js?q=ä"></script>'
    assert checks.linked(page, "http://blog.example/") == ["/st%C3%A0tic/a%20b%20c.js?q=%C3%A4"]


def test_an_answer_that_never_ends_is_cut_off(place: str) -> None:
    with pytest.raises((OSError, visits.HTTPException)):
        visits.ask(place, "/endless", "blog.example", "http", 0.2)
