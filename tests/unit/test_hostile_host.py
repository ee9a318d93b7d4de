"""Commands against a host that answers as it likes: an error that names the host, or nothing of note; no traceback."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from test_events import DAMAGED, FACTS, GOOD

from deploykit import cache, operations, remote, tables
from deploykit.agent.values import Facts
from deploykit.channel import Silent
from deploykit.config import load
from deploykit.config.project import Project
from deploykit.errors import DeploykitError
from deploykit.model import events
from deploykit.opening import Opening
from deploykit.operations import Outcome, Session
from deploykit.screen import Screen
from deploykit.transport import Target

TOML = """
[hosts.web1]
address = "203.0.113.5"

[apps.blog]
source = "blog"
domains = ["blog.example"]
"""


class Host:
    """An exchange with a host that says the first of `said`, then ends; the last of them again and again."""

    said: ClassVar[list[bytes]] = []
    status = 0
    raises: Exception | None = None

    def __init__(self) -> None:
        self.written = b""
        self._rest = self.said.pop(0) if len(self.said) > 1 else self.said[0]

    def write(self, data: bytes) -> None:
        self.written += data

    def close_write(self) -> None: ...

    def read(self, deadline: float | None = None) -> bytes:
        piece, self._rest = self._rest[:65536], self._rest[65536:]
        if not piece and self.raises is not None:
            raise self.raises
        return piece

    def finish(self) -> tuple[int, str]:
        return self.status, ""


class Ssh:
    user = "root"

    def __init__(self, target: Target) -> None:
        self.target = target

    def exec(self, command: str) -> Host:
        return Host()


class Fake(Opening):
    """An opening to that host."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.ssh = Ssh(target)  # type: ignore[assignment]

    def begin(self, command: str) -> None: ...

    def allow(self, confirm: object) -> None: ...

    def close(self) -> None: ...

    def wait(self, command: str) -> Any:
        return Host()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.setattr(cache, "FOLDER", tmp_path / "cache")
    monkeypatch.setattr(operations, "Opening", Fake)
    monkeypatch.setattr(Host, "raises", None)
    monkeypatch.setattr(Host, "status", 0)
    (tmp_path / "deploykit.toml").write_text(TOML)
    (tmp_path / "blog").mkdir()
    (tmp_path / "blog/manage.py").write_text(
        "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'blog.settings')\n"
    )
    (tmp_path / "blog/requirements.txt").write_text("django\n")
    (tmp_path / "blog/blog").mkdir()
    (tmp_path / "blog/blog/settings.py").write_text("INSTALLED_APPS = []\n")
    (tmp_path / "blog/blog/wsgi.py").write_text("")
    yield load(tmp_path / "deploykit.toml")


REQUESTS = ["status", "secrets", "leave", "restart", "rollback", "logs"]


def asked(project: Project, operation: str, *lines: bytes, first: bytes = b"") -> Outcome:
    """What a command gets and shows, when the host answers with these lines, and with `first` before that."""
    Host.said = [*([first] if first else []), b"".join(lines)]
    show = Screen(verbose=True)

    def work(entry: Any) -> Outcome:
        session = Session(project, entry, show)
        if operation in ("plan", "apply"):
            return session.converge(operation, None)
        return session.ask({"operation": operation, "app": "blog"})

    (outcome,) = operations.each(project.hosts, work)
    if outcome.answer and operation == "status":
        tables.status(show, outcome.host, outcome.answer)
    if outcome.ok and operation == "secrets":
        tables.secrets(show, outcome.host, project.app("blog"), outcome.answer)
    if operation == "plan" and outcome.plan:
        show.plan(outcome.host, outcome.plan)
    tables.receipt(show, project, [outcome])
    if outcome.error is not None:
        assert "host web1" in outcome.error.where, outcome.error
        show.failure(outcome.error)
    show.stop()
    json.dumps([outcome.answer, outcome.plan])
    return outcome


def line(kind: str, **values: Any) -> bytes:
    return json.dumps({"event": kind, **GOOD[kind], **values}).encode() + b"\n"


END = line("end")


@pytest.mark.parametrize("operation", [*REQUESTS, "plan", "apply"])
def test_every_kind_in_every_damage(project: Project, operation: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each of them alone and after the facts, and then an end. One project and one test: there are thousands."""
    first = line("facts") if operation in ("plan", "apply") else b""
    refused = 0
    all_of = [*REQUESTS, "plan", "apply"]
    every = 30 if first else len(REQUESTS)  # each meets some of the commands: reading a project takes a while
    for name, damaged in list(DAMAGED.items())[all_of.index(operation) :: every]:
        try:
            outcome = asked(project, operation, damaged, END, first=first)
        except Exception as error:
            raise AssertionError(f"{operation}: {name}: {error!r}") from error
        refused += outcome.error is not None
        shown = capsys.readouterr()
        assert "\u202e" not in shown.out + shown.err or name.startswith("log ('line',)"), name
        assert not [each for each in (shown.out + shown.err).splitlines() if each.startswith("\u202ey")], name
    assert refused > 20


@pytest.mark.parametrize("operation", REQUESTS)
@pytest.mark.parametrize("kind", GOOD)
def test_a_good_answer_to_another_question(project: Project, operation: str, kind: str) -> None:
    outcome = asked(project, operation, line(kind), END)
    right = operations._ANSWERS.get(operation)
    assert (outcome.error is None and outcome.ok) or kind not in (right, "end") or right is not None
    if right is not None and kind != right:
        assert not outcome.ok and outcome.error is not None


@pytest.mark.parametrize("operation", REQUESTS)
def test_a_host_that_only_says_that_it_failed(project: Project, operation: str) -> None:
    outcome = asked(project, operation, line("end", ok=False))
    assert outcome.error is not None and "without an answer" in outcome.error.what
    assert asked(project, operation, line("error"), line("end", ok=False)).error is None, "it said why"


@pytest.mark.parametrize("said", [b"", b"\n", b"\xff\n", b'{"a": 1}\n' * 1000, line("started"), line("started")[:-9]])
def test_a_host_that_says_nothing_of_use(project: Project, said: bytes) -> None:
    assert asked(project, "status", said).error is not None


def test_an_agent_that_waited_too_long_for_us_is_begun_again(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was begun ahead, and reading the sources took longer than it waits."""
    ends = [94, 0]
    monkeypatch.setattr(Host, "finish", lambda self: (ends.pop(0), ""))
    Host.said = [b"", line("status") + END]
    (outcome,) = operations.each(
        project.hosts, lambda entry: Session(project, entry, Screen()).ask({"operation": "status"})
    )
    assert outcome.ok and ends == [0]


# -- measures --------------------------------------------------------------------------------------


def test_a_line_without_end(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LONGEST", 1 << 20)
    for begin in (b"", b'{"event":"output","app":"blog","line":"'):
        error = asked(project, "restart", begin + b"x" * (2 << 20), END).error
        assert error is not None and "expected lines of at most 1048576 bytes" in error.what


@pytest.mark.parametrize("each", [line("output"), b"noise\n"])
def test_lines_without_end(project: Project, monkeypatch: pytest.MonkeyPatch, each: bytes) -> None:
    monkeypatch.setattr(events, "TOTAL", 1 << 20)
    error = asked(project, "restart", each * ((1 << 20) // len(each) + 10), END).error
    assert error is not None and "expected an answer of at most 1 MiB" in error.what


def test_a_host_that_never_answers(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    deadlines: list[float | None] = []

    def read(self: Host, deadline: float | None = None) -> bytes:
        deadlines.append(deadline)
        if len(deadlines) == 1:
            return line("progress")
        raise TimeoutError if deadline is not None else ConnectionError

    monkeypatch.setattr(Host, "read", read)
    began = time.monotonic()
    asked(project, "restart")
    assert deadlines[0] is not None and 60 < deadlines[0] - began < 900, "the first word has a limit"
    assert deadlines[1] is None, "a run may be silent for as long as apt is"
    deadlines.append(None)
    monkeypatch.setattr(Host, "read", lambda self, deadline=None: (_ for _ in ()).throw(TimeoutError))
    error = asked(project, "restart").error
    assert error is not None and "the agent has not answered for 300 s" in error.what


def test_a_silent_host_is_told_from_a_lost_connection(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Host, "raises", Silent("the host has not answered for 60 s"))
    error = asked(project, "restart", line("started")).error
    assert error is not None and error.what == "the host has not answered for 60 s"
    assert "`fab deploy` again shows how it ended" in error.todo
    monkeypatch.setattr(Host, "raises", ConnectionError())
    monkeypatch.setattr(Host, "status", -1)
    error = asked(project, "restart", line("started")).error
    assert error is not None and error.what == "the connection was lost"


def test_we_are_heard_of_while_a_host_is_at_work(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the agent takes us for gone."""
    monkeypatch.setattr(remote, "_BEAT", 0.01)
    beaten = threading.Event()
    written: list[bytes] = []

    def write(self: Host, data: bytes) -> None:
        written.append(data)
        if len(written) > 3:
            beaten.set()

    def read(self: Host, deadline: float | None = None) -> bytes:
        assert beaten.wait(30)
        return line("error") + line("end", ok=False)

    monkeypatch.setattr(Host, "write", write)
    monkeypatch.setattr(Host, "read", read)
    asked(project, "rollback")
    assert written[0].endswith(b"}\n") and written[1:4] == [b"\n"] * 3


# -- facts -----------------------------------------------------------------------------------------


def kept(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache/facts").glob("*.json"))


BAD_FACTS: dict[str, Any] = {
    "memory": ["1987", None, -1, 1.5, True, 10**30],
    "processors": [0, "2", None],
    "python": ["", "3", "three", "3.11.2\n", None, 3.11, "3.11.2/../../x"],
    "system": [None, 1, "de bian", "../x", "a\nb"],
    "ufw": [22, "22\n", "$(x)", "x", "22,", ",22", ":", "22:", "9" * 99],
    "ipv6": ["yes", None],
}


@pytest.mark.parametrize(("name", "value"), [(name, each) for name, values in BAD_FACTS.items() for each in values])
def test_bad_facts_are_not_kept(project: Project, tmp_path: Path, name: str, value: Any) -> None:
    error = asked(project, "plan", line("facts", facts={**FACTS, name: value})).error
    assert error is not None and f"facts.facts.{name}" in error.what and not kept(tmp_path)
    error = asked(project, "plan", line("facts", facts={k: v for k, v in FACTS.items() if k != name})).error
    assert error is not None and name in error.what and not kept(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"memory": 1}', "[" * 99999, json.dumps({**FACTS, "memory": "x"})]
)
def test_a_bad_file_of_facts_is_asked_for_again(project: Project, tmp_path: Path, text: str) -> None:
    asked(project, "plan", line("plan"), END, first=line("facts"))
    (place,) = kept(tmp_path)
    assert json.loads(place.read_text()) == FACTS
    place.write_text(text)
    asked(project, "plan", line("plan"), END, first=line("facts"))
    assert json.loads(place.read_text()) == FACTS


ODD: list[dict[str, Any]] = [
    {"memory": 0}, {"memory": 1 << 32}, {"processors": 1 << 16}, {"system": ""}, {"codename": ""}, {"ufw": ""},
    {"ufw": "any"}, {"ufw": "99999:0"}, {"python": "0.0"}, {"python": "999.999.999"}, {"architecture": "x" * 40},
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_odd_facts_are_no_traceback(project: Project, odd: dict[str, Any]) -> None:
    with contextlib.suppress(DeploykitError):
        asked(project, "plan", line("plan"), END, first=line("facts", facts={**FACTS, **odd}))
    assert Facts(**{**FACTS, **odd})


# -- files -----------------------------------------------------------------------------------------

WANTS: dict[str, Callable[[list[str]], list[bytes]]] = {
    "another app": lambda shas: [line("tree", app="other")],
    "another app's files": lambda shas: [line("want", app="../../etc", files=shas)],
    "a sha of nothing": lambda shas: [line("want", files=["0" * 64])],
    "a path": lambda shas: [line("want", files=["../../../etc/passwd"])],
    "one file twice": lambda shas: [line("want", files=[*shas, shas[0]])],
    "trees without end": lambda shas: [line("tree")] * 100,
    "files without end": lambda shas: [line("want", files=shas)] * 100,
}


@pytest.mark.parametrize("name", WANTS)
def test_a_host_gets_what_it_was_offered(project: Project, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts: list[Host] = []
    (app,) = project.apps_of(project.hosts[0])
    tree = operations.sources(project, project.hosts[0])[app.name]
    shas = sorted({each.sha for each in tree.entries.values()})
    begin = Host.__init__

    def noted(self: Host) -> None:
        begin(self)
        hosts.append(self)

    monkeypatch.setattr(Host, "__init__", noted)
    error = asked(project, "apply", *WANTS[name](shas), END, first=line("facts")).error
    assert error is not None and ("it asks for" in error.what or "expected" in error.what)
    sent = max(len(each.written) for each in hosts)
    assert b"root:" not in b"".join(each.written for each in hosts) and sent < 1 << 20
