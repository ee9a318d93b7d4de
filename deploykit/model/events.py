"""What an agent may say, kind by kind and field by field, and how much of it.

A host is not trusted: what comes from it is an event of a kind and shape that stands here, or an error. Its texts are
without what steers a terminal or makes a person read something else than is there. On the wire events are JSON objects.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

Event = dict[str, Any]
Check = Callable[[Any, str], Any]

LONGEST = 16 << 20  # bytes of one event: the names of the files of a very large source are one
TOTAL = 512 << 20  # bytes of an answer
_MOST = 1 << 20  # lists and objects in one event

#: What moves a terminal's cursor, is not seen, or turns the direction of reading: C0 and C1 controls, Unicode's format
#: characters (UAX #9 has those of direction), fillers and tags, and halves of surrogates, which cannot be printed.
_STEERING = (
    r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    r"\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]"
)
_BREAK = r"[\t\n\x0b-\r\x1c-\x1e\x85\u2028\u2029]+"


class Bad(ValueError):
    """What came is not an event. The text says what was expected, and what came instead."""


def clean(text: object) -> str:
    """A text of lines without what would steer the terminal."""
    said = str(text)
    return said if said.isascii() and said.isprintable() else re.sub(_STEERING, "", said)


def one_line(text: object) -> str:
    """The same where one line is meant: nothing in it begins another."""
    said = str(text)
    return said if said.isascii() and said.isprintable() else re.sub(_STEERING, "", re.sub(_BREAK, " ", said))


# -- kinds of values ---------------------------------------------------------------------------------------------------


def _wrong(at: str, expected: str, got: object) -> Bad:
    shown = {type(None): "null", bool: "true or false", dict: "an object", list: "a list"}.get(type(got))
    return Bad(f"`{at}`: expected {expected} but got {shown or one_line(repr(got)[:60])}")


def _text(value: Any, at: str) -> str:
    if not isinstance(value, str):
        raise _wrong(at, "a text", value)
    return clean(value)


def _line(value: Any, at: str) -> str:
    if not isinstance(value, str):
        raise _wrong(at, "a text", value)
    return one_line(value)


def _raw(value: Any, at: str) -> str:
    """As an app wrote it, for a file or a program that reads what we print: one line."""
    if not isinstance(value, str):
        raise _wrong(at, "a text", value)
    return value.replace("\n", " ").encode("utf-8", "replace").decode()


def _flag(value: Any, at: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(at, "true or false", value)
    return value


def _between(low: int, high: int) -> Check:
    def check(value: Any, at: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _wrong(at, f"a whole number from {low} to {high}", value)
        return value

    return check


def _number(value: Any, at: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= 1e11:
        raise _wrong(at, "a number", value)
    return value


def _time(value: Any, at: str) -> float:
    """Seconds since 1970: of a year that a calendar has."""
    if _number(value, at) < 0:
        raise _wrong(at, "a time", value)
    return float(value)


def _like(pattern: str, what: str) -> Check:
    def check(value: Any, at: str) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value, re.ASCII):
            raise _wrong(at, what, value)
        return value

    return check


def _maybe(check: Check) -> Check:
    return lambda value, at: None if value is None else check(value, at)


def _maybe_empty(check: Check) -> Check:
    return lambda value, at: {} if value == {} else check(value, at)


def _many(check: Check) -> Check:
    def all_of(value: Any, at: str) -> list[Any]:
        if not isinstance(value, list):
            raise _wrong(at, "a list", value)
        return [check(each, f"{at}[{index}]") for index, each in enumerate(value)]

    return all_of


def _by_name(check: Check) -> Check:
    def all_of(value: Any, at: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _wrong(at, "an object", value)
        return {one_line(name): check(each, f"{at}.{one_line(name[:60])}") for name, each in value.items()}

    return all_of


def _object(**fields: Check) -> Check:
    """Those fields; one whose name ends with "_" here may be left out. What has no name here is not passed on."""
    names = [(name.rstrip("_"), name.endswith("_"), check) for name, check in fields.items()]

    def check_all(value: Any, at: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _wrong(at, "an object", value)
        found = {}
        for name, optional, check in names:
            if name in value:
                found[name] = check(value[name], f"{at}.{name}")
            elif not optional:
                raise Bad(f"`{at}`: expected the field `{name}`, which is missing")
        return found

    return check_all


def _aspect(value: Any, at: str) -> Any:
    """One side of a difference."""
    if isinstance(value, list):
        return [_line(each, at) for each in value]
    if value is None or isinstance(value, bool):
        return value
    return _number(value, at) if isinstance(value, (int, float)) else _line(value, at)


def _difference(value: Any, at: str) -> dict[str, Any]:
    shape = _SHOWN if isinstance(value, dict) and "diff" in value else _SIDES
    found: dict[str, Any] = shape(value, at)
    return found


_SHOWN = _object(name=_line, diff=_text)
_SIDES = _object(name=_line, old=_aspect, new=_aspect)
_count = _between(0, 1 << 53)
_sha = _like("[0-9a-f]{64}", "a SHA-256")
_word = _like(r"[A-Za-z0-9][A-Za-z0-9.+_~-]{0,40}|", "a word")

# -- kinds of events ---------------------------------------------------------------------------------------------------

#: What a host says of itself; the fields are those of `values.Facts`. Made into a manifest, so: not any text.
facts = _object(
    system=_word,
    version=_word,
    codename=_word,
    architecture=_word,
    memory=_between(0, 1 << 32),
    processors=_between(1, 1 << 16),
    python=_like(r"\d{1,3}(\.\d{1,3}){1,2}", "a version"),
    ipv6=_flag,
    ufw=_maybe(_like(r"((any|\d{1,5}(:\d{1,5})?)(,(?!$)|$))*", "a list of ports")),
)
_change = _object(
    key=_line,
    verb=_like("create|change|remove|later|run", "what a change is"),
    app_=_line,
    differences=_many(_difference),
    actions=_many(_line),
)
_release = _object(release=_line, label=_line, at=_time)
_program = _object(name=_line, state=_line, uptime=_count, memory=_count, said=_line)
_schedule = _object(name=_line, next=_line, last=_line, running=_flag, result=_line, status=_number, on=_flag)
_run = _object(
    at=_time,
    who=_line,
    commit_=_line,
    operation=_line,
    changed=_count,
    changes_=_many(_line),
    ok=_flag,
    seconds_=_number,
)
_app = _object(
    app=_line,
    slot=_line,
    release=_line,
    label=_line,
    at=_time,
    process=_line,
    uptime=_number,
    processes=_count,
    programs=_many(_program),
    schedule=_many(_schedule),
    memory=_count,
    releases=_many(_release),
    size=_count,
)
_host = _object(
    system=_line, memory=_count, available=_count, disk=_count, free=_count, load=_number, processors=_count
)

KINDS: Mapping[str, Check] = {
    "facts": _object(facts=facts),
    "tree": _object(app=_line, tree=_line),
    "want": _object(app=_line, files=_many(_sha), bytes=_count),
    "plan": _object(changes=_many(_change), kept=_many(_line)),
    "error": _object(what=_line, detail=_text, todo=_text, app_=_line),
    "end": _object(ok=_flag, empty_=_flag, changed_=_count, seconds_=_number, locked_=_flag),
    "ended": _object(run=_line, ok=_maybe(_flag), who=_line, at=_time, errors=_many(_line)),
    "attached": _object(who=_line, age=_number),
    "started": _object(run=_line, who=_line, at=_time),
    "changing": _object(key=_line, verb=_line),
    "action": _object(name=_line),
    "progress": _object(line=_text),
    "stage": _object(app=_line, name=_line),
    "output": _object(app=_line, line=_text),
    "deployed": _object(app=_line, release=_line, seconds_=_number, label_=_line),
    "restarted": _object(app=_line, release=_line, processes=_many(_line)),
    "log": _object(**{"app": _line, "from": _line, "line": _raw}),
    "left": _object(dumps=_many(_line), found=_flag),
    "secrets": _object(app=_line, names=_many(_line), at=_by_name(_time), used=_many(_line)),
    "status": _object(host=_host, apps=_many(_app), journal=_maybe_empty(_run)),
}


def parse(line: bytes) -> Event | None:
    """The event that a line is; None for one that no agent has said. Raises Bad."""
    if not line.lstrip().startswith(b"{"):
        return None
    ours = b'"event"' in line[:200]
    if ours and line.count(b"{") + line.count(b"[") > _MOST:
        raise Bad(f"expected at most {_MOST} lists and objects in one event")
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        if ours:
            raise Bad(f"expected a JSON object but got {one_line(line[:60].decode('utf-8', 'replace'))}") from None
        return None
    if not isinstance(said, dict) or "event" not in said:
        return None
    return checked(said)


def checked(said: Event) -> Event:
    """The same event, with the fields that it has by `KINDS`. Raises Bad."""
    kind = said["event"]
    check = KINDS.get(kind) if isinstance(kind, str) else None
    if check is None:
        raise Bad(f"expected an event that this deploykit knows but got {one_line(repr(kind)[:60])}")
    return {"event": kind, **check(said, kind)}
