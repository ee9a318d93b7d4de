"""The one place where secrets are taken out of whatever leaves the host: events, run files, the journal, tracebacks.

What a program of an app says may hold any of its environment, in any dress that a traceback, a log or a shell gives it.
Known are the host's own secrets, those in the requests and records of this process, and what live apps still run with.
Loaded where there is a text to look at: not on a host with nothing to do.
"""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploykit.agent import paths, secret

TELLING = 6  # characters from which on a secret is masked: a shorter one is in many a word by chance

_HIDDEN = "(secret)"

#: Names and marks that a controller reads. They stay, also where a secret has the same text as an app's name.
_OURS = frozenset({"event", "app", "verb", "release", "run", "tree", "files", "processes", "names", "used", "at"})

_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s]*@", re.IGNORECASE)

#: (how many secrets were known when this was made, what is masked: the longest first).
_made: tuple[int, tuple[str, ...]] = (-1, ())
_kept: frozenset[str] | None = None  # what the host's files hold


def masked(value: Any) -> Any:
    """The same value with `(secret)` in the place of each secret, in all its texts but those of `_OURS`."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, dict):
        return {key: each if key in _OURS and not _deep(each) else masked(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked(each) for each in value]
    return value


def _deep(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(each, dict) for each in value)


def text(said: str) -> str:
    """A text with `(secret)` in the place of each secret."""
    for each in _masks():
        if each in said:
            said = said.replace(each, _HIDDEN)
    return said


def _masks() -> tuple[str, ...]:
    global _kept, _made
    if _kept is None:
        _kept = frozenset(_on_the_host())
    if _made[0] != len(secret.known):
        found = {dress for value in _kept | secret.known for part in _parts(value) for dress in _dresses(part)}
        _made = len(secret.known), tuple(sorted(found, key=lambda each: (-len(each), each)))
    return _made[1]


def _parts(value: str) -> Iterator[str]:
    """The whole, each of its lines, and the password of a URL."""
    found = {value, value.strip(), *(line.strip() for line in value.splitlines())}
    for url in _URL.findall(value):
        password = url.rpartition("@")[0].partition("://")[2].partition(":")[2]
        found |= {password, urllib.parse.unquote(password)}
    yield from (each for each in found if len(each) >= TELLING)


def _dresses(value: str) -> Iterator[str]:
    """As it may be written: by repr(), in JSON, in a URL, in a shell, in HTML, as a part of what base64 encodes."""
    yield value
    yield repr(value)[1:-1]
    yield repr(f"\"'{value}")[4:-1]  # in a text that has both kinds of quotes
    yield ascii(value)[1:-1]
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield html.escape(value)
    yield shlex.quote(value).removeprefix("'").removesuffix("'")
    yield value.replace("'", "'\\''")
    yield value.replace("%", "%%")
    data = value.encode("utf-8", "surrogatepass")
    yield repr(data)[2:-1]
    for safe in ("", "/", "/:@!$&()*+,;=~'"):
        quoted = urllib.parse.quote(data, safe=safe)
        yield from (quoted, re.sub("%..", lambda found: found[0].lower(), quoted), quoted.replace("%20", "+"))
    for before in range(3):  # bytes of its first group of three that stand before it: "user:", say
        encoded = base64.b64encode(bytes(before) + data).decode()
        whole = (before + len(data)) * 8 // 6  # characters of it that these bytes alone decide
        steady = encoded[-(-before * 8 // 6) : whole]
        yield from (steady, steady.replace("+", "-").replace("/", "_"))


def _on_the_host() -> Iterator[str]:
    """The values in the host's own store, in the records of apps, and in the environments that slots run with."""
    for place in paths.SECRETS.glob("*.json"):
        if not place.name.endswith(".times.json"):
            yield from (each for each in _json(place).values() if isinstance(each, str))
    for place in paths.APPS.glob("*.json"):
        yield from _within(_json(place))


def _json(place: Path) -> dict[str, Any]:
    try:
        found = paths.read_json(place, {})
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _within(data: Any) -> Iterator[str]:
    """The secrets of encoded resources, as `resource.encode` writes them."""
    if isinstance(data, list):
        for each in data:
            yield from _within(each)
    elif isinstance(data, dict):
        for key, each in data.items():
            if key == "secret" and isinstance(each, str):
                yield each
            elif key == "deploykit.agent.envfile:EnvFile":
                yield from _of_file(each)
            if not isinstance(each, str):
                yield from _within(each)


def _of_file(fields: Any) -> Iterator[str]:
    """A secret that was given another value since is in the file still that its app runs with."""
    from deploykit.agent.envfile import read

    try:
        hidden = {name for name, value in fields["variables"] if not isinstance(value, str)}
        yield from (value.reveal() for name, value in read(fields["path"]).items() if name in hidden)
    except (KeyError, TypeError, ValueError):
        return
