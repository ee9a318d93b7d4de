"""What a release must answer well: asked on its own sockets before it goes live, and through nginx after."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from deploykit.agent import visits
from deploykit.agent.deployment import Deployment
from deploykit.agent.management import Management
from deploykit.agent.process import TimedOut, tail
from deploykit.agent.resource import Failed
from deploykit.agent.values import Check
from deploykit.model import layout

_ASCII = "".join(map(chr, range(0x21, 0x7F)))
_PATIENCE = 5.0  # seconds in which a 503, "not ready yet", may turn into something better


def before(deployment: Deployment, slot: str, commands: Management) -> None:
    """Asks the release in a slot that is not live yet. Raises Failed with what it answered."""
    todo = "correct the app (or the check) and deploy again; the live release is untouched"
    for number, check in enumerate(deployment.checks, 1):
        if check.command:
            try:
                status, output = commands.shell(check.command, timeout=check.timeout)
            except TimedOut as late:
                what = f"`{check.command}` did not end within {late.seconds:g} s"
                raise _failed(deployment, number, what, "", todo) from None
            if status:
                raise _failed(deployment, number, f"`{check.command}` ended with {status}", tail(output), todo)
        else:
            _ask(deployment, number, check, _socket(deployment, slot, check), todo)


def after(deployment: Deployment) -> None:
    """Asks what visitors get now that the release is live. Raises Failed."""
    for number, check in enumerate(deployment.checks, 1):
        if not check.command:
            place = "" if deployment.health.proxy else _socket(deployment, "live", check)
            _ask(deployment, number, check, place, "correct the app (or the check) and deploy again")


def _socket(deployment: Deployment, slot: str, check: Check) -> str:
    """The socket of the web server that a path belongs to: the longest of the paths that it begins with."""
    routes = [(path, each.socket) for each in deployment.programs for path in each.paths]
    fitting = [(len(path), name) for path, name in routes if check.path.startswith(path)]
    return str(layout.socket(deployment.app, slot, max(fitting)[1] if fitting else ""))


def _ask(deployment: Deployment, number: int, check: Check, place: str, todo: str) -> None:
    asked = f"{'WebSocket' if check.websocket else 'GET'} {check.path} with Host {check.host}"
    asked += "" if place else " through nginx"
    front = deployment.front()
    deadline = time.monotonic() + min(_PATIENCE, check.timeout)
    while True:
        try:
            wrong, body = _answer(check, place, front)
        except (OSError, visits.HTTPException) as error:
            wrong, body = f"had no answer ({error})", ""
        if not wrong:
            break
        if "answered 503" not in wrong or time.monotonic() > deadline:
            raise _failed(deployment, number, f"{asked} {wrong}", tail(body, 10), todo)
        time.sleep(0.2)
    if check.asset and not (place and deployment.health.proxy):  # before the switch nginx serves the old files
        _assets(deployment, number, check, place, front, body, todo)


def _answer(check: Check, place: str, front: visits.Front) -> tuple[str, str]:
    """("", body) for a good answer, else what is wrong with it."""
    if check.websocket:
        status = visits.handshake(place, check.path, check.host, check.scheme, check.timeout, front)
        well = status == 101 or (not place and front.refuses(status))
        return ("" if well else f"answered {status} instead of 101"), ""
    answer = _get(check, place, front, check.path)
    if not place and front.refuses(answer.status):
        return "", ""
    if answer.status not in (check.statuses or range(200, 400)):
        wanted = " or ".join(map(str, check.statuses)) or "200 to 399"
        return f"answered {answer.status} instead of {wanted}", answer.body
    if check.text and check.text not in answer.body:
        return f"has no {check.text!r} in its body", answer.body
    return _json(check, answer.body), answer.body


def _get(check: Check, place: str, front: visits.Front, path: str) -> visits.Answer:
    if place:
        return visits.ask(place, path, check.host, check.scheme, check.timeout)
    return visits.ask_nginx(path, check.host, check.scheme, check.timeout, front)


def _json(check: Check, body: str) -> str:
    if not check.json:
        return ""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return "is no JSON"
    for keys, wanted in check.json:
        found: Any = document
        for key in keys.split("."):
            if isinstance(found, dict) and key in found:
                found = found[key]
            elif isinstance(found, list) and key.isdigit() and int(key) < len(found):
                found = found[int(key)]
            else:
                return f"has no {keys} in its JSON"
        if json.dumps(found, ensure_ascii=False) != wanted:
            return f"says {keys} is {json.dumps(found, ensure_ascii=False)[:200]} instead of {wanted}"
    return ""


def _assets(
    deployment: Deployment, number: int, check: Check, place: str, front: visits.Front, body: str, todo: str
) -> None:
    deadline = time.monotonic() + deployment.command_timeout
    for path in linked(body, f"{check.scheme}://{check.host}{check.path}"):
        if time.monotonic() > deadline:
            what = f"what {check.path} links did not answer within {deployment.command_timeout:g} s (command_timeout)"
            raise _failed(deployment, number, what, "", todo)
        try:
            status = _get(check, place, front, path).status
        except (OSError, visits.HTTPException) as error:
            raise _failed(
                deployment, number, f"{path}, which {check.path} links, had no answer", str(error), todo
            ) from None
        if status != 200:
            raise _failed(deployment, number, f"{path}, which {check.path} links, answered {status}", "", todo)


def linked(body: str, url: str) -> list[str]:
    """The stylesheets and scripts of this site that a page links, as paths, in order."""
    here = urlsplit(url)
    found: dict[str, None] = {}
    for link in _Links.of(body):
        with contextlib.suppress(ValueError):  # "//[": no URL, and no browser asks for it
            each = urlsplit(urljoin(url, link))
            if each.netloc == here.netloc and each.scheme == here.scheme:
                path = each.path + (f"?{each.query}" if each.query else "")
                found[quote(path, safe=_ASCII)] = None  # as browsers do with what is not ASCII
    return list(found)


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    @classmethod
    def of(cls, body: str) -> Iterator[str]:
        parser = cls()
        parser.feed(body)
        yield from parser.found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "script" and given.get("src"):
            self.found.append(str(given["src"]))
        elif tag == "link" and given.get("href") and "stylesheet" in (given.get("rel") or "").lower().split():
            self.found.append(str(given["href"]))


def _failed(deployment: Deployment, number: int, what: str, detail: str, todo: str) -> Failed:
    release = f"release {deployment.release} of {deployment.app}"
    return Failed(f"{release} fails check {number}: {what}", detail, todo)
