"""The conversation with the agent, over a transport that runs the real bootstrap and the real agent on this machine."""

from __future__ import annotations

import contextlib
import getpass
import grp
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from deploykit import cache, source
from deploykit.agent.resource import Action, Secret, encode
from deploykit.agent.resources import File
from deploykit.bundle import Bundle, bundle, named
from deploykit.config.project import Source
from deploykit.errors import DeploykitError
from deploykit.remote import Event, Remote

USER, GROUP = getpass.getuser(), grp.getgrgid(os.getgid()).gr_name


class Local:
    """A transport to this machine: /var/lib/deploykit is a folder of the test's. `cut` ends the connection after so
    many lines, `cut_write` after so many bytes were sent."""

    def __init__(self, state: Path, *, cut: int = 0, cut_write: int = 0, user: str = "root") -> None:
        self.state = state
        self.user = user
        self.commands: list[str] = []
        self.written: list[bytes] = []
        self.cut, self.cut_write = cut, cut_write

    def exec(self, command: str) -> Exchange:
        self.commands.append(command)
        return Exchange(command.replace("/var/lib/deploykit", str(self.state)), self)


class Exchange:
    def __init__(self, command: str, transport: Local) -> None:
        self._transport = transport
        self._sent = self._lines = 0
        self.child = subprocess.Popen(
            ["sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "DEPLOYKIT_STATE": str(transport.state)},
        )

    def _cut(self) -> None:
        for pipe in (self.child.stdin, self.child.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        raise ConnectionError("the connection was lost")

    def write(self, data: bytes) -> None:
        assert self.child.stdin is not None
        self._transport.written.append(data)
        room = self._transport.cut_write - self._sent if self._transport.cut_write else len(data)
        self._sent += len(data)
        try:
            self.child.stdin.write(data[: max(room, 0)])
            self.child.stdin.flush()
        except BrokenPipeError:
            raise ConnectionError("the connection was lost") from None
        if room < len(data):
            self._cut()

    def close_write(self) -> None:
        assert self.child.stdin is not None
        if not self.child.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self.child.stdin.close()

    def read(self, deadline: float | None = None) -> bytes:
        assert self.child.stdout is not None
        if self._transport.cut and self._lines == self._transport.cut:
            self._cut()
        self._lines += 1
        return self.child.stdout.readline()

    def finish(self) -> tuple[int, str]:
        assert self.child.stderr is not None
        error = self.child.stderr.read().decode()
        status = self.child.wait()
        lost = self._transport.cut or self._transport.cut_write
        return (-1, "") if lost else (status, error)


def refuse(question: str) -> str:
    raise AssertionError(f"asked: {question}")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture(scope="module")
def agent() -> Bundle:
    return bundle(Path("/nonexistent"))


def talk(
    transport: Local,
    made: Bundle,
    request: Event,
    trees: dict[str, source.Tree] | None = None,
    on: Mapping[str, Callable[[], object]] = MappingProxyType({}),
) -> list[Event]:
    """The events of a request; `on` does something as soon as an event of that kind comes."""
    remote = Remote("web1", transport, made, refuse, trees or {})
    events = []
    for event in remote.events({"who": "ann@laptop", "digest": "d", **request}):
        events.append(event)
        on.get(event["event"], lambda: None)()
    return events


def kinds(events: list[Event]) -> list[str]:
    return [each["event"] for each in events]


def test_the_agent_is_sent_once(state: Path, agent: Bundle) -> None:
    first = Local(state)
    (event,) = talk(first, agent, {"operation": "facts"})
    assert event["facts"]["architecture"] == os.uname().machine
    assert len(first.commands) == 2 and agent.data in first.written[1], "asked, then sent with the request"
    second = Local(state)
    assert talk(second, agent, {"operation": "facts"}) == [event]
    assert len(second.commands) == 1 and sum(map(len, second.written)) < 200
    place = state / "agent" / agent.sha
    assert list(place.rglob("*.pyc")), "compiled once, not at every run"
    assert [each.name for each in (state / "agent").iterdir()] == [agent.sha]


def test_a_new_agent_takes_the_old_ones_place(state: Path, agent: Bundle) -> None:
    (state / "agent/0123").mkdir(parents=True)
    (state / "agent/tmpleft").mkdir()
    os.utime(state / "agent/0123", (1, 1))
    talk(Local(state), agent, {"operation": "facts"})
    assert {each.name for each in (state / "agent").iterdir()} == {agent.sha, "tmpleft"}, "of today: maybe at work"


def test_an_agent_cut_off_on_its_way_is_no_agent(state: Path, agent: Bundle) -> None:
    with pytest.raises(DeploykitError, match="connection was lost") as caught:
        talk(Local(state, cut_write=len(agent.data) // 2), agent, {"operation": "facts"})
    assert "host web1" in str(caught.value) and "`fab deploy` again" in str(caught.value)
    assert not (state / "agent" / agent.sha).exists()
    assert kinds(talk(Local(state), agent, {"operation": "facts"})) == ["facts"]


def test_what_an_agent_without_an_answer_said_is_told(state: Path, agent: Bundle) -> None:
    with pytest.raises(DeploykitError) as caught:
        talk(Local(state), agent, {"operation": "no such thing"})
    assert "the agent ended with 1" in str(caught.value) and "no such thing" in str(caught.value)


def test_secrets_go_by_standard_input_alone(state: Path, agent: Bundle) -> None:
    transport = Local(state)
    request = {"operation": "secrets", "app": "blog", "set": {"TOKEN": "hush-hush"}}
    events = talk(transport, agent, request)
    assert events[0]["names"] == ["TOKEN"]
    assert "hush-hush" not in " ".join(transport.commands) + json.dumps(events)
    kept = state / "secrets/blog.json"
    assert json.loads(kept.read_text()) == {"TOKEN": "hush-hush"} and kept.stat().st_mode & 0o777 == 0o600


# -- files -----------------------------------------------------------------------------------------

RECEIVER = """
import hashlib, os, pathlib
from deploykit.agent import wire
from deploykit.agent.resource import Failed
request = wire.receive()
place = pathlib.Path(os.environ["DEPLOYKIT_STATE"]) / "received"
place.mkdir()
wire.send({"event": "tree", "app": "blog", "tree": "t"})
listing = wire.receive()["files"]
sizes = {sha: size for _, _, size, sha in listing}
shas = list(dict.fromkeys(sha for _, _, _, sha in listing if sha not in request["have"]))
wire.send({"event": "want", "app": "blog", "files": shas, "bytes": sum(sizes[sha] for sha in shas)})
try:
    if shas:
        wire.receive_files(shas, sizes, place)
    wire.send({"event": "end", "ok": True})
except Failed as failure:
    wire.send({"event": "error", "what": failure.what, "detail": failure.detail, "todo": failure.todo})
    wire.send({"event": "end", "ok": False})
"""


@pytest.fixture(scope="module")
def receiver(agent: Bundle) -> Bundle:
    """An agent with the real wire that only receives files."""
    return named({**agent.files, "__main__.py": RECEIVER.encode()})


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> source.Tree:
    """Empty files, equal files, a large one that does not compress, a link, many small ones."""
    monkeypatch.setattr(cache, "FOLDER", tmp_path / "cache")
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "empty").touch()
    (folder / "empty too").touch()
    (folder / "large").write_bytes(os.urandom(5 * 2**20))
    (folder / "zeros").write_bytes(bytes(5 * 2**20))
    (folder / "link").symlink_to("large")
    for number in range(1200):
        (folder / f"{number:04}.py").write_text(f"number = {number}\n" * (number % 7))
    return source.read(Source(folder=folder), (), "blog")


def received(state: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in (state / "received").iterdir()}


def test_every_file_arrives(state: Path, receiver: Bundle, tree: source.Tree) -> None:
    began = time.monotonic()
    events = talk(Local(state), receiver, {"operation": "x", "have": []}, {"blog": tree})
    assert kinds(events) == ["want", "end"] and events[1]["ok"]
    found = received(state)
    assert found == {each.sha: tree.read(path) for path, each in tree.entries.items()}
    assert all(hashlib.sha256(data).hexdigest() == sha for sha, data in found.items())
    assert b"" in found.values() and b"large" in found.values()
    assert events[0]["bytes"] == sum(map(len, found.values()))
    assert time.monotonic() - began < 20


def test_only_what_lacks_is_sent(state: Path, receiver: Bundle, tree: source.Tree) -> None:
    have = [each.sha for path, each in tree.entries.items() if path != "0003.py"]
    transport = Local(state)
    events = talk(transport, receiver, {"operation": "x", "have": have}, {"blog": tree})
    assert events[0]["files"] == [tree.entries["0003.py"].sha]
    assert received(state) == {tree.entries["0003.py"].sha: b"number = 3\n" * 3}
    # The last writes are the frame and its end; it is small.
    assert transport.written[-1] == b"0\n" and len(transport.written[-2]) < 100
    everything = talk(
        Local(state.with_name("other")),
        receiver,
        {"operation": "x", "have": [*have, *events[0]["files"]]},
        {"blog": tree},
    )
    assert everything[0]["files"] == [] and everything[1]["ok"]


@pytest.mark.parametrize("only", ["empty", "link", "zeros"])
def test_a_single_odd_file(state: Path, receiver: Bundle, tree: source.Tree, only: str) -> None:
    sha = tree.entries[only].sha
    have = [each.sha for each in tree.entries.values() if each.sha != sha]
    assert talk(Local(state), receiver, {"operation": "x", "have": have}, {"blog": tree})[-1]["ok"]
    assert received(state) == {sha: tree.read(only)}


def test_a_connection_lost_while_files_are_sent(state: Path, receiver: Bundle, tree: source.Tree) -> None:
    talk(Local(state), receiver, {"operation": "x", "have": [e.sha for e in tree.entries.values()]}, {"blog": tree})
    os.rmdir(state / "received")
    with pytest.raises(DeploykitError, match="connection was lost"):
        talk(Local(state, cut_write=3 * 2**20), receiver, {"operation": "x", "have": []}, {"blog": tree})
    names = {each.sha for each in tree.entries.values()}
    assert 0 < len(received(state)) < len(names)


def test_a_file_that_changes_while_it_is_sent(state: Path, receiver: Bundle, tree: source.Tree) -> None:
    (tree.folder / "0003.py").write_text("number = 4\n" * 3)  # as long as before
    events = talk(Local(state), receiver, {"operation": "x", "have": []}, {"blog": tree})
    assert events[1]["what"] == "a file changed while it was sent" and events[1]["todo"] == "deploy again"
    assert tree.entries["0003.py"].sha not in received(state)
    (tree.folder / "0003.py").write_text("longer than it was before, by far, by very far")
    with pytest.raises(DeploykitError, match=r"0003\.py changed while it was sent"):
        talk(Local(state.with_name("b")), receiver, {"operation": "x", "have": []}, {"blog": tree})
    (tree.folder / "0003.py").unlink()
    with pytest.raises(DeploykitError, match=r"0003\.py cannot be read: No such file"):
        talk(Local(state.with_name("c")), receiver, {"operation": "x", "have": []}, {"blog": tree})


# -- runs that outlive the connection --------------------------------------------------------------


def apply(
    state: Path,
    agent: Bundle,
    *resources: File,
    digest: str = "d",
    cut: int = 0,
    on: Mapping[str, Callable[[], object]] = MappingProxyType({}),
) -> list[Event]:
    (facts,) = talk(Local(state), agent, {"operation": "facts"})
    request = {
        "operation": "apply",
        "resources": [encode(each) for each in resources],
        "deployments": [],
        "facts": facts["facts"],
        "digest": digest,
        "only": None,
    }
    return talk(Local(state, cut=cut), agent, request, on=on)


def slow(tmp_path: Path) -> File:
    """A file whose action waits until there is a file `gate`, and says when it is done."""
    script = f"for i in $(seq 600); do test -e {tmp_path}/gate && break; sleep 0.05; done; echo done >> {tmp_path}/done"
    return File(str(tmp_path / "a.conf"), "x", USER, GROUP, actions=(Action("tell slowly", (("sh", "-c", script),)),))


def wait_for(place: Path) -> None:
    deadline = time.monotonic() + 15
    while not place.exists():
        assert time.monotonic() < deadline, f"{place} did not come"
        time.sleep(0.02)


def test_a_run_goes_on_without_its_connection(tmp_path: Path, state: Path, agent: Bundle) -> None:
    with pytest.raises(DeploykitError) as caught:
        apply(state, agent, slow(tmp_path), cut=2)  # the plan, and that it started
    assert "what had begun goes on there" in str(caught.value)
    (tmp_path / "gate").touch()
    wait_for(tmp_path / "done")
    time.sleep(0.3)
    events = apply(state, agent, slow(tmp_path))
    assert kinds(events) == ["ended", "plan", "end"]
    assert events[0]["ok"] is True and events[0]["who"] == "ann@laptop" and events[0]["errors"] == []
    assert events[2]["ok"] and events[2]["changed"] == 0
    assert (tmp_path / "done").read_text() == "done\n", "once"
    assert kinds(apply(state, agent, slow(tmp_path))) == ["plan", "end"], "it is told once"


def test_the_same_deploy_attaches(tmp_path: Path, state: Path, agent: Bundle) -> None:
    with pytest.raises(DeploykitError):
        apply(state, agent, slow(tmp_path), cut=2)
    events = apply(state, agent, slow(tmp_path), on={"attached": (tmp_path / "gate").touch})
    assert kinds(events) == ["attached", "started", "changing", "action", "end"], events
    assert events[0]["who"] == "ann@laptop" and 0 <= events[0]["age"] < 10
    assert events[-1] == {**events[-1], "ok": True, "changed": 2}
    assert (tmp_path / "done").read_text() == "done\n"


def test_another_deploy_is_refused(tmp_path: Path, state: Path, agent: Bundle) -> None:
    with pytest.raises(DeploykitError):
        apply(state, agent, slow(tmp_path), cut=2)
    error, end = apply(state, agent, slow(tmp_path), digest="another")
    assert "the host is locked: ann@laptop has had it for " in error["what"] and "(apply)" in error["what"]
    assert "wait until it has ended" in error["todo"]
    assert end == {"event": "end", "ok": False, "locked": True}
    (tmp_path / "gate").touch()
    wait_for(tmp_path / "done")


def test_a_worker_that_was_killed(tmp_path: Path, state: Path, agent: Bundle) -> None:
    (facts,) = talk(Local(state), agent, {"operation": "facts"})
    request = {
        "operation": "apply",
        "resources": [encode(slow(tmp_path))],
        "deployments": [],
        "facts": facts["facts"],
        "only": None,
    }
    events: list[Event] = []
    remote = Remote("web1", Local(state), agent, refuse, {})
    for event in remote.events({"who": "ann@laptop", "digest": "d", **request}):
        events.append(event)
        if event["event"] == "action":
            os.kill(json.loads((state / "lock").read_text())["pid"], 9)
    assert kinds(events) == ["plan", "started", "changing", "action", "error", "end"], events
    assert "ended from outside" in events[-2]["what"] and "deploy again" in events[-2]["todo"]
    assert events[-1]["ok"] is False
    (tmp_path / "gate").touch()
    events = apply(state, agent, slow(tmp_path))
    assert kinds(events) == ["ended", "plan", "started", "action", "end"]
    assert events[0]["ok"] is None
    assert [each["verb"] for each in events[1]["changes"]] == ["run"], "the file is there; what it owes is not done"
    assert events[-1]["ok"]


def test_what_the_run_keeps_is_for_root_and_without_secrets(tmp_path: Path, state: Path, agent: Bundle) -> None:
    file = File(str(tmp_path / "b.conf"), Secret("hush-hush"), USER, GROUP, 0o600)
    assert apply(state, agent, file)[-1]["ok"]
    assert (tmp_path / "b.conf").read_text() == "hush-hush"
    for place in state.rglob("*"):
        if place.is_file() and "agent" not in place.parts:
            assert b"hush-hush" not in place.read_bytes(), place
            assert place.stat().st_mode & 0o077 == 0, place
