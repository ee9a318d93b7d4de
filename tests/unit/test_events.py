"""What an agent may say: all that its code says is known, and nothing else gets through."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest

from deploykit.agent import facts
from deploykit.agent.values import Facts
from deploykit.model import events

REPOSITORY = Path(__file__).resolve().parents[2]
SHA = "ab" * 32
FACTS = asdict(Facts("debian", "12", "bookworm", "x86_64", 1987, 2, "3.11.2", True, "22,80,9000:9010"))
APP = {
    "app": "blog", "slot": "a", "release": "r", "label": "main", "at": 1.5, "process": "RUNNING", "uptime": 3,
    "processes": 2, "memory": 5, "size": 6, "releases": [{"release": "r", "label": "main", "at": 1}],
    "programs": [{"name": "worker-1", "state": "RUNNING", "uptime": 1, "memory": 2, "said": ""}],
    "schedule": [{"name": "tick", "next": "", "last": "", "running": False, "result": "", "status": 0, "on": True}],
}  # fmt: skip
HOST = {"system": "debian 12", "memory": 1, "available": 1, "disk": 1, "free": 1, "load": 0.5, "processors": 1}
RUN = {"at": 1, "who": "ann", "commit": "", "operation": "apply", "changed": 1, "changes": [], "ok": True, "seconds": 1}

#: One good event of each kind, with every field that it may have.
GOOD: dict[str, dict[str, Any]] = {
    "facts": {"facts": FACTS},
    "tree": {"app": "blog", "tree": "t"},
    "want": {"app": "blog", "files": [SHA], "bytes": 3},
    "plan": {
        "changes": [
            {
                "key": "file /a", "verb": "change", "app": "blog", "actions": ["reload nginx"],
                "differences": [{"name": "content", "diff": "-a\n+b"}, {"name": "mode", "old": None, "new": ["a"]}],
            }
        ],
        "kept": ["database blog"],
    },
    "error": {"what": "bad", "detail": "a\nb", "todo": "mend it", "app": "blog"},
    "end": {"ok": True, "empty": False, "changed": 1, "seconds": 0.5, "locked": False},
    "ended": {"run": "1", "ok": None, "who": "ann", "at": 1, "errors": ["bad"]},
    "attached": {"who": "ann", "age": 1.5},
    "started": {"run": "1", "who": "ann", "at": 1},
    "changing": {"key": "file /a", "verb": "create"},
    "action": {"name": "reload nginx"},
    "progress": {"line": "Get:1"},
    "stage": {"app": "blog", "name": "migrate"},
    "output": {"app": "blog", "line": "words"},
    "deployed": {"app": "blog", "release": "r", "seconds": 1.5, "label": "main"},
    "restarted": {"app": "blog", "release": "r", "processes": ["worker-1"]},
    "log": {"app": "blog", "from": "worker-1", "line": "words"},
    "left": {"dumps": ["/a"], "found": True},
    "secrets": {"app": "blog", "names": ["KEY"], "at": {"KEY": 1.5}, "used": ["KEY"]},
    "status": {"host": HOST, "apps": [APP], "journal": RUN},
}  # fmt: skip
#: What is of no field's kind, or beyond its measure.
WRONG: list[Any] = [
    None, True, -1, 0.5, 1e300, float("nan"), float("inf"), 10**400, "", "x\n\u202ey", [], [[]], [1], {}, {"a": {}},
]  # fmt: skip


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place within a value."""
    if at:
        yield at
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*at, key))


def with_(event: dict[str, Any], at: tuple[Any, ...], damage: Any) -> dict[str, Any]:
    """A copy with something else in a place; KeyError as damage: without it."""
    copy = json.loads(json.dumps(event))
    inner = copy
    for key in at[:-1]:
        inner = inner[key]
    if damage is KeyError:
        del inner[at[-1]]
    else:
        inner[at[-1]] = damage
    return copy  # type: ignore[no-any-return]


def damaged() -> Iterator[tuple[str, bytes]]:
    """(what was done, the line) for each kind, each of its places and each damage."""
    for kind, values in GOOD.items():
        good = {"event": kind, **values}
        for at in places(values):
            for damage in (KeyError, *WRONG):
                if isinstance(at[-1], int) and damage is KeyError:
                    continue
                name = "missing" if damage is KeyError else repr(damage)[:20]
                yield f"{kind} {at} {name}", json.dumps(with_(good, at, damage)).encode() + b"\n"
        whole = json.dumps(good).encode()
        for cut in range(len(b'{"event": "'), len(whole), 7):
            yield f"{kind} cut at {cut}", whole[:cut] + b"\n"


DAMAGED = dict(damaged())


@pytest.mark.parametrize("kind", events.KINDS)
def test_a_good_event_passes_as_it_is(kind: str) -> None:
    event = {"event": kind, **GOOD[kind]}
    assert events.parse(json.dumps(event).encode()) == event
    assert events.parse(json.dumps({**event, "beyond": [[[]]]}).encode()) == event, "an unknown field is dropped"


def test_a_damaged_event_is_refused_or_has_its_shape() -> None:
    """By brute force: whatever is in whatever place, it is another event of that shape or a `Bad` in words."""
    assert len(DAMAGED) > 2000
    refused = 0
    for name, line in DAMAGED.items():
        try:
            event = events.parse(line)
        except events.Bad as bad:
            refused += 1
            assert "expected" in str(bad) and str(bad).isprintable(), name
            continue
        except Exception as error:
            raise AssertionError(name) from error
        assert event is not None, name
        assert events.checked(event) == event, f"{name}: what was let through is as it must be"
    assert refused > len(DAMAGED) // 2


@pytest.mark.parametrize(
    "line",
    [
        b'{"event":' + b"[" * 100_000,
        b'{"event":"plan","changes":' + b'{"a":' * 100_000,
        b'{"event":"end","ok":' + b"9" * 5000 + b"}",
        b'{"event":"end","ok":true,"seconds":1e999}',
        b'{"event":"end","ok":tru',
        b'{"event":"no such kind"}',
        b'{"event":["end"],"ok":true}',
        b'{"event":null}',
        b'{"event":"plan","kept":[],"changes":[' + b"{}," * (1 << 20) + b"{}]}",
    ],
    ids=lambda line: line[:30].decode() + f" {len(line)}",
)
def test_what_is_meant_to_hurt_is_an_error_in_words(line: bytes) -> None:
    with pytest.raises(events.Bad, match="expected"):
        events.parse(line + b"\n")


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"hello\n", b"42\n", b'["x"]\n', b"\xff\n", b'{"a": 1}\n', b"{" * 9999, b"{\n"]
)
def test_what_no_agent_says_is_no_event(line: bytes) -> None:
    assert events.parse(line) is None


def test_texts_are_clean() -> None:
    evil = "a\u202eb\u200b\x1b[2Jc\nfake\ud800"
    told = events.checked({"event": "error", "what": evil, "detail": evil, "todo": evil})
    assert told == {"event": "error", "what": "abc fake", "detail": "abc\nfake", "todo": "abc\nfake"}
    log = events.checked({"event": "log", "app": evil, "from": evil, "line": "\x1b[31mred\ud800"})
    assert log == {"event": "log", "app": "abc fake", "from": "abc fake", "line": "\x1b[31mred?"}


# -- facts -----------------------------------------------------------------------------------------


def test_the_facts_of_this_machine_are_facts() -> None:
    mine = asdict(facts.read())
    assert events.facts(mine, "facts") == mine and Facts(**mine)


def test_facts_have_the_fields_that_values_has() -> None:
    assert set(events.facts(FACTS, "facts")) == {each.name for each in fields(Facts)}


# -- what the agent's code says --------------------------------------------------------------------


def said() -> Iterator[tuple[str, str, set[str], bool]]:
    """(where, kind, fields, whether there may be more) of every event that is spelled out in the agent or a recipe."""
    for path in (*(REPOSITORY / "deploykit/agent").rglob("*.py"), *(REPOSITORY / "recipes").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Dict):
                continue
            pairs = [(key.value, value) for key, value in zip(node.keys, node.values, strict=True)
                     if isinstance(key, ast.Constant)]  # fmt: skip
            names = {str(name) for name, _ in pairs}
            if "event" in names:
                kind = dict(pairs)["event"]
                assert isinstance(kind, ast.Constant), f"{path.name}:{node.lineno}: a kind is spelled out"
                yield f"{path.name}:{node.lineno}", str(kind.value), names - {"event"}, None in node.keys


def test_whatever_the_agent_says_is_known() -> None:
    found = list(said())
    assert len(found) > 30
    for where, kind, names, more in found:
        assert kind in events.KINDS, f"{where}: {kind} is not in events.KINDS"
        assert names <= set(GOOD[kind]), f"{where}: {kind} has no field {names - set(GOOD[kind])}"
        if not more:
            needed = {each for each in GOOD[kind] if refuses(kind, each)}
            assert needed <= names, f"{where}: {kind} needs {needed - names}"
    assert {kind for _, kind, _, _ in found} == set(events.KINDS), "and nothing else is known"


def refuses(kind: str, lacking: str) -> bool:
    try:
        events.checked({"event": kind, **{name: value for name, value in GOOD[kind].items() if name != lacking}})
    except events.Bad:
        return True
    return False
