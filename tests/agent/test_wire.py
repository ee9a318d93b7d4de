"""The agent as a program, and controllers that stop in the midst of it: what they hold up is themselves."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from deploykit.agent import facts, lock
from deploykit.agent.deployment import Deployment, Health, Venv
from deploykit.agent.resource import Action, Resource, encode

from .applied import file

SILENCE = 60.0  # seconds without a byte: as it is, where a test is not about that
CONTENTS = [b"import os\n" * 500, os.urandom(1 << 20)]
SHAS = [hashlib.sha256(each).hexdigest() for each in CONTENTS]
FILES = [["manage.py", 0o100644, len(CONTENTS[0]), SHAS[0]], ["data", 0o100644, len(CONTENTS[1]), SHAS[1]]]


class Agent:
    """One that runs, and what it is sent and says."""

    def __init__(self, state: Path, root: Path, silence: float = SILENCE) -> None:
        self.state = state
        environment = {"DEPLOYKIT_STATE": str(state), "DEPLOYKIT_ROOT": str(root), "DEPLOYKIT_SILENCE": str(silence)}
        self.child = subprocess.Popen(
            [sys.executable, "-m", "deploykit.agent"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
        )

    def send(self, *data: bytes) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write(b"".join(data))
        self.child.stdin.flush()

    def ask(self, operation: str, *resources: Resource, source: bool = False, **more: Any) -> None:
        request = {
            "who": "ann@laptop",
            "digest": "d",
            "operation": operation,
            "resources": [encode(each) for each in resources],
            "deployments": [encode(BLOG)] if source else [],
            "facts": asdict(facts.read()),
            "only": None,
            **more,
        }
        self.send(json.dumps(request).encode() + b"\n")

    def event(self) -> dict[str, Any]:
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        assert line, self.child.communicate()[1].decode()
        return json.loads(line)  # type: ignore[no-any-return]

    def until(self, kind: str) -> list[dict[str, Any]]:
        events = [self.event()]
        while events[-1]["event"] != kind:
            events.append(self.event())
        return events

    def wanted(self) -> list[dict[str, Any]]:
        """Up to the point where it waits for files."""
        events = self.until("tree")
        self.send(json.dumps({"files": FILES}).encode() + b"\n")
        return events + self.until("want")

    def end(self, status: int = 0) -> str:
        """What it says of its end, which comes by itself."""
        assert self.child.wait(60) == status and self.child.stderr is not None
        return self.child.stderr.read().decode()


BLOG = Deployment(
    app="blog",
    release="r1",
    tree="t",
    label="main",
    root="",
    venv=Venv("k", "/nonexistent/uv", (), "3", "requirements", (), ()),
    slot_a=(),
    slot_b=(),
    health=Health("/", "blog.example", "http", False, False),
    database="none",
    database_name="",
    keep=3,
)


def frames() -> bytes:
    """What the controller answers to `want`: both files."""
    packed = zlib.compress(b"".join(CONTENTS), 1)
    half = len(packed) // 2
    return b"".join(b"%d\n%s" % (len(each), each) for each in (packed[:half], packed[half:])) + b"0\n"


@pytest.fixture
def agent(state: Path, tmp_path: Path) -> Iterator[Callable[..., Agent]]:
    begun: list[Agent] = []

    def begin(silence: float = SILENCE) -> Agent:
        begun.append(Agent(state, tmp_path / "root", silence))
        return begun[-1]

    yield begin
    for each in begun:
        each.child.kill()
        each.child.communicate()


def free(state: Path) -> bool:
    """Whether no process has the host's lock."""
    with open(state / "lock") as handle, contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def incoming(state: Path) -> list[Path]:
    return list((state / "incoming").glob("*"))


def eventually(true: Callable[[], object]) -> bool:
    deadline = time.monotonic() + 30
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


STOPS = {
    "before the listing": b"",
    "in a header": b"12",
    "after a header": frames()[: frames().index(b"\n") + 1],
    "in a frame": frames()[:5000],
    "after a frame": frames()[: len(frames()) // 2],
    "before the end": frames()[:-2],
}


def stopped(agent: Agent, name: str) -> None:
    """A controller that has stopped there."""
    agent.ask("apply", source=True)
    if name == "before the listing":
        agent.until("tree")
    else:
        agent.wanted()
        agent.send(STOPS[name])


@pytest.mark.parametrize("name", STOPS)
def test_who_stops_sending_holds_nothing_up(
    agent: Callable[..., Agent], state: Path, tmp_path: Path, name: str
) -> None:
    stopped(agent(60), name)
    assert free(state), "nothing is received under the lock"
    (folder,) = incoming(state)
    other = agent(60)
    other.ask("apply", file(tmp_path / "a", "x"), digest="another")
    assert other.until("end")[-1]["ok"], "another run goes on"
    assert (tmp_path / "a").read_text() == "x"
    assert folder.exists(), "it is used by a run that lives"


@pytest.mark.parametrize("name", STOPS)
def test_who_stops_sending_is_given_up(agent: Callable[..., Agent], state: Path, name: str) -> None:
    first = agent(4)
    stopped(first, name)
    assert "nothing came from the controller for 4 s" in first.end(1)
    assert incoming(state) == []


def test_files_of_a_killed_run_go_with_the_next(agent: Callable[..., Agent], state: Path, tmp_path: Path) -> None:
    dead, living = agent(), agent(60)
    for each in (dead, living):
        each.ask("apply", source=True)
        each.wanted()
        each.send(frames()[:5000])
    assert eventually(lambda: len([*state.glob("incoming/*/*")]) >= 2)
    dead.child.kill()
    dead.child.wait()
    (state / "incoming" / SHAS[0]).write_text("a file that an earlier deploykit received")
    assert len(incoming(state)) == 3
    plan = agent()
    plan.ask("plan")
    assert plan.until("end")[-1]["ok"]
    (folder,) = incoming(state)
    assert str(living.child.pid) in folder.name
    living.send(frames()[5000:])
    assert "started" in [each["event"] for each in living.until("end")], "what it has received was left alone"
    assert eventually(lambda: incoming(state) == []), "and goes when it has ended"


def test_a_sign_of_life_is_enough(agent: Callable[..., Agent], state: Path) -> None:
    slow = agent(6)
    slow.ask("apply", source=True)
    slow.wanted()
    for part in (b"\n", b"\n", b"\n", b"\n", frames()[:2], frames()[2:5000], frames()[5000:9000], frames()[9000:]):
        time.sleep(1)
        slow.send(part)
    assert "started" in [each["event"] for each in slow.until("end")]


def test_what_changed_meanwhile_is_looked_at_again(agent: Callable[..., Agent], state: Path, tmp_path: Path) -> None:
    wanted = file(tmp_path / "a", "x")
    first = agent(60)
    first.ask("apply", wanted, source=True)
    (plan, *_) = first.wanted()
    assert [each["key"] for each in plan["changes"]] == [f"file {tmp_path / 'a'}", "app blog"]
    other = agent()
    other.ask("apply", wanted, digest="another")
    assert other.until("end")[-1]["changed"] == 1
    first.send(frames())
    again, started = first.event(), first.event()
    assert (again["event"], started["event"]) == ("plan", "started")
    assert [each["key"] for each in again["changes"]] == ["app blog"], "what is applied is what was shown"


def test_nothing_is_looked_at_twice_for_nothing(agent: Callable[..., Agent], state: Path) -> None:
    first = agent(60)
    first.ask("apply", source=True)
    first.wanted()
    first.send(frames())
    assert first.event()["event"] == "started"


def test_who_has_the_lock_after_the_files_are_there_is_respected(
    agent: Callable[..., Agent], state: Path, tmp_path: Path
) -> None:
    first = agent(60)
    first.ask("apply", source=True)
    first.wanted()
    held = lock.take(lock.Holder("bob@desk", "1", "another", "apply", time.time(), os.getpid()))
    first.send(frames())
    error, end = first.event(), first.event()
    assert "the host is locked: bob@desk" in error["what"] and end["locked"]
    held.close()
    first.end()
    assert incoming(state) == []


def test_what_a_look_holds_is_waited_for(agent: Callable[..., Agent], state: Path) -> None:
    held = lock.take(lock.Holder("bob@desk", "1", "another", "plan", time.time(), os.getpid()))
    first = agent(60)
    first.ask("apply")
    with pytest.raises(subprocess.TimeoutExpired):
        first.child.wait(0.7)
    held.close()
    assert first.until("end")[-1]["ok"]


def test_a_run_that_never_begins_is_not_waited_for(agent: Callable[..., Agent], state: Path) -> None:
    held = lock.take(lock.Holder("bob@desk", "1", "d", "apply", time.time(), os.getpid()))
    first = agent(4)
    first.ask("apply")
    with pytest.raises(subprocess.TimeoutExpired):
        first.child.wait(2)
    first.send(b"\n")
    assert "the host is locked: bob@desk" in first.event()["what"]
    held.close()


def test_who_reads_nothing_holds_nothing_up(agent: Callable[..., Agent], state: Path, tmp_path: Path) -> None:
    """A stopped terminal, a controller under SIGSTOP: the plan alone is more than a pipe holds."""
    many = [file(tmp_path / f"{number:04}-{'x' * 200}", "x") for number in range(600)]
    first = agent(4)
    first.ask("apply", *many)
    assert eventually(lambda: len([*tmp_path.glob("*-x*")]) == 600), "it works without its controller"
    assert eventually(lambda: free(state))
    assert "the controller has not been heard of for 4 s, and reads nothing" in first.end(1)
    (run,) = state.glob("runs/*.jsonl")
    assert json.loads(run.read_text().splitlines()[-1])["ok"] is True
    second = agent()
    second.ask("apply", *many)
    events = second.until("end")
    assert [each["event"] for each in events] == ["ended", "plan", "end"] and events[0]["ok"], "its end is told later"


def test_who_reads_nothing_and_is_heard_of_is_waited_for(agent: Callable[..., Agent], tmp_path: Path) -> None:
    """Ctrl-S: the terminal stands still, and deploykit lives."""
    many = [file(tmp_path / f"{number:04}-{'x' * 200}", "x") for number in range(600)]
    first = agent(4)
    first.ask("plan", *many)
    for _ in range(6):
        time.sleep(1)
        first.send(b"\n")
    assert first.until("end")[-1]["ok"]


def test_nothing_asked_is_no_fault(agent: Callable[..., Agent]) -> None:
    nothing = agent()
    assert nothing.child.stdin is not None
    nothing.child.stdin.close()
    nothing.child.stdin = None
    assert nothing.end() == ""


def test_a_stopped_controller_in_the_midst_of_a_run(agent: Callable[..., Agent], state: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    slow = Action("slowly", (("sh", "-c", f"while ! test -e {gate}; do sleep 0.05; done"),))
    first = agent(4)
    first.ask("apply", file(tmp_path / "a", "x", slow))
    first.until("action")
    assert "the controller is gone; the run goes on" in first.end(1)
    assert not free(state), "the run goes on"
    other = agent(60)
    other.ask("apply", file(tmp_path / "a", "x", slow))
    assert other.event()["event"] == "attached"
    gate.touch()
    assert other.until("end")[-1]["ok"]


def test_an_attached_controller_hears_of_a_killed_run(agent: Callable[..., Agent], state: Path, tmp_path: Path) -> None:
    slow = Action("slowly", (("sh", "-c", f"while test -e {tmp_path}; do sleep 0.05; done"),))
    first, other = agent(60), agent(60)
    first.ask("apply", file(tmp_path / "a", "x", slow))
    first.until("action")
    other.ask("apply", file(tmp_path / "a", "x", slow))
    other.until("action")
    os.kill(json.loads((state / "lock").read_text())["pid"], signal.SIGKILL)
    for each in (first, other):
        error, end = each.event(), each.event()
        assert "ended from outside" in error["what"] and end["ok"] is False
