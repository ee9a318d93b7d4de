"""What a person sees where there is no terminal: plain lines; and what a host may never do to a terminal."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from typing import Any

import pytest

from deploykit.agent.resource import Note
from deploykit.errors import DeploykitError
from deploykit.model import events
from deploykit.model.events import clean, one_line
from deploykit.screen import _SILENT, Screen, span

#: Clears the screen, names the window, colours, a bell, a backspace, a carriage return that hides what was before, an
#: 8-bit CSI, what turns the direction of reading, what is not seen, half a character that cannot be printed, lines that
#: another one begins, by each character that begins one.
EVIL = (
    "\x1b[2J\x1b]0;owned\x07\x1b[31mred\x08\rover\x9b2J\x00\u202egnp.\u2066\u200f\u061c\u200b\ufeff\ud800\U000e0041"
    "\nfake: 1\x0bfake: 2\x0cfake: 3\x85fake: 4\u2028fake: 5\u2029fake: 6\x1efake: 7"
)


def harmless(text: str) -> bool:
    steers = r"[\x00-\x08\x0b-\x1f\x7f-\x9f]"
    misleads = r"[\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e0fff]"
    begins = [each for each in text.splitlines() if each.startswith("fake")]
    return not re.search(f"{steers}|{misleads}", text) and not begins


def test_control_characters_are_stripped() -> None:
    assert "red" in clean(EVIL) and "over" in clean(EVIL) and harmless(one_line(EVIL))
    assert harmless(clean(EVIL.partition("\n")[0]))
    assert clean("tab\tand\nnew line, grüße, 写真") == "tab\tand\nnew line, grüße, 写真"


PLAN = {
    "event": "plan",
    "changes": [
        {
            "key": f"file /etc/{EVIL}x",
            "verb": "change",
            "app": "",
            "differences": [
                {"name": "content", "diff": f"@@ -1 +1 @@\n-old {EVIL}\n+new"},
                {"name": "mode", "old": EVIL, "new": "0644"},
            ],
            "actions": [f"reload {EVIL}"],
        },
        {"key": "package nginx", "verb": "later", "app": "", "differences": [], "actions": []},
    ],
    "kept": [f"database {EVIL}"],
}
EVENTS: list[dict[str, Any]] = [
    {"event": "ended", "who": EVIL, "at": 0, "ok": None, "errors": [EVIL]},
    {"event": "attached", "who": EVIL, "age": 3.4},
    PLAN,
    {"event": "started", "run": EVIL, "who": EVIL, "at": 0},
    {"event": "want", "app": EVIL, "files": ["x"], "bytes": 2**20},
    {"event": "changing", "key": EVIL, "verb": "create"},
    {"event": "changing", "key": f"{EVIL}, b", "verb": "create"},
    {"event": "action", "name": EVIL},
    {"event": "stage", "app": EVIL, "name": EVIL},
    {"event": "output", "app": EVIL, "line": EVIL},
    {"event": "output", "app": EVIL, "line": f"dumped to {EVIL}"},
    {"event": "deployed", "app": EVIL, "release": EVIL, "seconds": 1.0},
    {"event": "error", "what": EVIL, "detail": EVIL, "todo": EVIL},
    {"event": "end", "ok": False},
    {"event": "progress", "line": f"{EVIL}\n{EVIL}"},
    {"event": "restarted", "app": EVIL, "release": EVIL, "processes": [EVIL]},
    {"event": "restarted", "app": EVIL, "release": EVIL, "processes": []},
]


@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event["event"])
def test_no_event_of_a_host_steers_the_terminal(
    event: dict[str, Any], verbose: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = Screen(several=True, verbose=verbose)
    screen.event("web1", event)
    screen.stop()
    shown = capsys.readouterr()
    assert harmless(shown.out) and harmless(shown.err)


def test_every_kind_of_event_is_shown_or_meant_to_be_silent() -> None:
    shown = {name.removeprefix("_on_") for name in vars(Screen) if name.startswith("_on_")}
    assert shown | _SILENT == set(events.KINDS) and not shown & _SILENT
    assert {each["event"] for each in EVENTS} | {"log"} == shown


def test_a_log_is_a_log_where_no_terminal_is(capsys: pytest.CaptureFixture[str]) -> None:
    Screen(several=True).event("web1", {"event": "log", "app": "a", "from": EVIL, "line": "\x1b[31mred"})
    assert capsys.readouterr().out.endswith(" | \x1b[31mred\n")


def test_nor_does_a_plan_a_table_or_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(verbose=True)
    screen.plan("web1", PLAN)
    screen.table("", ["a", "b"], [[EVIL, "x"]])
    screen.failure(DeploykitError(EVIL, EVIL, EVIL))
    screen.notes("web1", [Note(EVIL)])
    shown = capsys.readouterr()
    assert harmless(shown.out) and harmless(shown.err)
    assert "red" in shown.out and "red" in shown.err


TERMINAL = """
import json, sys
from deploykit.screen import Screen
screen = Screen(verbose=True)
for event in json.load(open(sys.argv[1])):
    screen.event("web1", event)
screen.plan("web1", json.load(open(sys.argv[1]))[2])
screen.stop()
"""


def on_a_terminal(program: str, *arguments: str) -> str:
    """What a program writes to a terminal that it has to itself."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"},
    ):
        os.close(slave)
        written = io.BytesIO()
        while True:
            try:
                data = os.read(master, 65536)
            except OSError:  # EIO: the other side is closed
                break
            if not data:
                break
            written.write(data)
    os.close(master)
    return written.getvalue().decode()


def test_not_even_on_a_terminal(tmp_path: Any) -> None:
    import json

    place = tmp_path / "events.json"
    place.write_text(json.dumps(EVENTS))
    written = on_a_terminal(TERMINAL, str(place))
    assert "error: host web1" in written and "Traceback" not in written
    # rich's own colours and cursor moves are there; none of the host's is.
    assert "\x1b[" in written
    for bad in ("\x1b[2J", "\x1b]0", "\x07", "\x08", "\x9b", "\x00", "\u202e", "\u200b", "\nfake"):
        assert bad not in written


def test_plain_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(several=True)
    for event in (
        {"event": "plan", "changes": [{"key": "file /a", "verb": "create"}, {"key": "file /b", "verb": "change"}]},
        {"event": "started", "run": "1", "who": "ann", "at": 0},
        {"event": "changing", "key": "file /a", "verb": "create"},
        {"event": "action", "name": "reload nginx"},
        {"event": "stage", "app": "blog", "name": "migrate"},
        {"event": "output", "app": "blog", "line": "chatter"},
        {"event": "deployed", "app": "blog", "release": "abc", "seconds": 2.04},
    ):
        screen.event("web1", event)
    screen.stop()
    assert capsys.readouterr().out.splitlines() == [
        "web1: plan: 1 to make, 1 to change",
        "web1: + file /a",
        "web1: * reload nginx",
        "web1: blog: migrate",
        "web1: blog: release abc is live (2.0 s)",
    ]


def test_an_error_says_what_where_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen.event("web1", {"event": "error", "what": "nginx is unhappy", "detail": "line 1\nline 2", "todo": "mend it"})
    screen.failure(DeploykitError("it is off", "host web1", "switch it on"))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "error: host web1: nginx is unhappy",
        "  line 1",
        "  line 2",
        "  -> mend it",
        "error: host web1: it is off",
        "  switch it on",
    ]


def test_a_table_in_plain_columns(capsys: pytest.CaptureFixture[str]) -> None:
    Screen().table("title", ["app", "release"], [["memories", "a"], ["b", "1234567"]])
    assert capsys.readouterr().out.splitlines() == ["title", "app       release", "memories  a", "b         1234567"]


def test_quiet_prints_no_result_but_errors(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(quiet=True)
    screen.line("x")
    screen.plan("web1", PLAN)
    screen.table("", ["a"], [["b"]])
    screen.event("web1", {"event": "error", "what": "bad", "detail": "", "todo": ""})
    shown = capsys.readouterr()
    assert shown.out == "" and "bad" in shown.err


def test_nobody_to_ask_means_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n"))
    assert Screen().host_key("web1", "ssh-ed25519", "SHA256:x") is False
    assert Screen().confirm("sure?", "blog") is False
    with pytest.raises(DeploykitError) as caught:
        Screen().password("sudo password of ann on web1")
    assert "sudo password of ann on web1" in str(caught.value) and "run it in a terminal" in str(caught.value)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89, "89 s"), (90, "2 min"), (5400, "2 h"), (86400 * 12, "12 d")]
)
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text
