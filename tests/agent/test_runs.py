"""One run at a time, runs that are read along and told of later, and the journal: on this machine's own files."""

from __future__ import annotations

import getpass
import grp
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from deploykit.agent import applying, engine, facts, lock, paths, process, runs
from deploykit.agent.engine import Manifest
from deploykit.agent.resource import Failed, Resource, State, encode
from deploykit.agent.resources import File
from deploykit.model import layout

from .applied import file, in_a_process, noting

USER, GROUP = getpass.getuser(), grp.getgrgid(os.getgid()).gr_name


# -- the lock --------------------------------------------------------------------------------------


def holder(**values: Any) -> lock.Holder:
    data = {"who": "ann@laptop", "run": "r1", "digest": "d", "operation": "apply", "since": time.time() - 90, "pid": 1}
    return lock.Holder(**{**data, **values})


def test_the_lock_names_its_holder_and_its_age() -> None:
    held = lock.take(holder())
    with pytest.raises(lock.Held) as caught:
        lock.take(holder(who="bob@desk"))
    assert caught.value.holder is not None and caught.value.holder.who == "ann@laptop"
    assert 90 <= caught.value.holder.age < 100
    held.close()
    lock.take(holder(who="bob@desk")).close()
    assert paths.LOCK.stat().st_mode & 0o777 == 0o600


def test_a_killed_holder_holds_nothing() -> None:
    def die() -> None:
        lock.take(holder())
        os.kill(os.getpid(), 9)

    assert in_a_process(die) == -9
    lock.take(holder(who="bob@desk")).close()


def test_programs_that_a_run_starts_do_not_keep_the_lock(tmp_path: Path) -> None:
    held = lock.take(holder())
    with subprocess.Popen(["sleep", "5"]) as child:
        held.close()
        lock.take(holder()).close()
        child.kill()


def test_what_a_killed_run_started_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_keeping", None)

    def die(seconds: float) -> None:
        lock.settle()
        script = f"(sleep {seconds}; echo ended > {tmp_path}/ended) & kill -9 $PPID"
        process.run(["sh", "-c", script])

    assert in_a_process(lambda: die(0.6)) == -9
    assert not (tmp_path / "ended").exists()
    lock.settle()
    assert (tmp_path / "ended").exists()


def test_but_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_keeping", None)

    def die() -> None:
        lock.settle()
        process.run(["sh", "-c", "sleep 3 & kill -9 $PPID"])

    assert in_a_process(die) == -9
    with pytest.raises(Failed) as caught:
        lock.settle(patience=0.1)
    assert "still goes on" in caught.value.what and "sleep" in caught.value.detail
    assert "end it, then deploy again" in caught.value.todo


def test_what_an_app_has_left_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_keeping", None)
    monkeypatch.setattr(layout, "ROOT", tmp_path)
    for app in ("evil", "bank"):
        layout.home(app).mkdir(parents=True)

    def die() -> None:
        lock.settle()
        subprocess.Popen(["sleep", "20"], pass_fds=process.kept("evil"))
        os.kill(os.getpid(), 9)

    assert in_a_process(die) == -9
    lock.settle(patience=0.1)
    assert process.kept("bank") and process.kept("") and process.kept("postgres") == process.kept("")
    with pytest.raises(Failed, match="still goes on"):
        process.kept("evil")
    lock.settled()


def test_what_a_run_that_ended_in_order_leaves_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_keeping", None)

    def build() -> None:
        lock.settle()
        process.run(["sh", "-c", "sleep 3 >/dev/null 2>&1 &"])
        lock.settled()

    assert in_a_process(build) == 0
    lock.settle(patience=0.1)


def test_what_a_killed_writer_left_is_cleared_away(tmp_path: Path) -> None:
    def die() -> None:
        os.replace = lambda *arguments: os.kill(os.getpid(), 9)  # type: ignore[assignment,misc]
        paths.write(tmp_path / "a", "half")

    def die_too() -> None:
        os.rename = lambda *arguments, **values: os.kill(os.getpid(), 9)  # type: ignore[assignment,misc]
        file(tmp_path / "b", "half").change(None)

    def left() -> list[str]:
        return sorted(each.name for each in tmp_path.iterdir() if each.is_file())

    for death, name in ((die, ".a."), (die_too, ".b.")):
        assert in_a_process(death) == -9
        (half,) = left()
        assert half.startswith(name), "what the one before left is gone"
    (tmp_path / ".a.1.deploykit").touch()  # of a process that lives
    (tmp_path / f".b.{os.getpid()}.deploykit").touch()  # of one that had our number
    (tmp_path / ".b.not-ours").touch()
    paths.write(tmp_path / "a", "whole")
    file(tmp_path / "b", "whole").change(None)
    assert left() == [".a.1.deploykit", ".b.not-ours", "a", "b"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"who": "ann"}'])
def test_a_lock_without_a_name_is_a_lock(text: str) -> None:
    held = lock.take(holder())
    paths.LOCK.write_text(text)
    with pytest.raises(lock.Held) as caught:
        lock.take(holder())
    assert caught.value.holder is None
    held.close()


# -- runs and the journal, by the agent as a program -----------------------------------------------


def agent(state: Path, request: dict[str, Any]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "deploykit.agent"],
        input=json.dumps({"who": "ann@laptop", "digest": "d", **request}) + "\n",
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "DEPLOYKIT_STATE": str(state)},
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def request(operation: str, *resources: Resource, **values: Any) -> dict[str, Any]:
    return {
        "operation": operation,
        "resources": [encode(each) for each in resources],
        "deployments": [],
        "facts": asdict(facts.read()),
        "only": None,
        "commit": "abc123",
        **values,
    }


def test_a_run_is_relayed_and_kept(tmp_path: Path, state: Path) -> None:
    events = agent(state, request("apply", file(tmp_path / "a", "x", noting(tmp_path))))
    assert [each["event"] for each in events] == ["plan", "started", "changing", "action", "end"]
    assert events[-1]["ok"] is True and events[-1]["changed"] == 2
    (kept,) = (state / "runs").glob("*.jsonl")
    assert [json.loads(line) for line in kept.read_text().splitlines()] == events[1:]
    assert kept.with_suffix(".seen").exists() and kept.stat().st_mode & 0o777 == 0o600
    assert [each["event"] for each in agent(state, request("apply", file(tmp_path / "a", "x")))] == ["plan", "end"]


def test_every_run_is_in_the_journal(tmp_path: Path, state: Path) -> None:
    agent(state, request("plan", file(tmp_path / "a", "x")))
    agent(state, request("apply", file(tmp_path / "a", "x")))
    agent(state, request("apply", file(tmp_path / "a", "x")))
    agent(state, request("apply", file(tmp_path / "a", "x"), file(tmp_path / "nowhere/a", "x")))
    entries = [json.loads(line) for line in (state / "journal.jsonl").read_text().splitlines()]
    assert [(each["operation"], each["changed"], each["ok"]) for each in entries] == [
        ("apply", 1, True),
        ("apply", 0, True),
        ("apply", 0, False),
    ]
    assert [each["changes"] for each in entries][:2] == [[f"create file {tmp_path / 'a'}"], []]
    assert {(each["who"], each["commit"]) for each in entries} == {("ann@laptop", "abc123")}
    assert all(abs(each["at"] - time.time()) < 60 and 0 <= each["seconds"] < 60 for each in entries)
    assert (state / "journal.jsonl").stat().st_mode & 0o077 == 0


def test_a_failed_run_says_so(tmp_path: Path, state: Path) -> None:
    events = agent(state, request("apply", file(tmp_path / "nowhere/a", "x")))
    assert [each["event"] for each in events] == ["plan", "started", "changing", "error", "end"]
    assert str(tmp_path / "nowhere") in events[3]["what"] + events[3]["detail"]
    assert events[4]["ok"] is False


def test_a_fault_of_deploykits_own_reaches_the_person_without_values(tmp_path: Path, state: Path) -> None:
    wrong = {"deploykit.agent.resources.files:Link": {"path": str(tmp_path / "l"), "target": {"secret": "hush-hush"}}}
    events = agent(state, {**request("apply"), "resources": [wrong]})
    assert [each["event"] for each in events][-2:] == ["error", "end"], events
    assert "deploykit itself failed" in events[-2]["what"] and "report it" in events[-2]["todo"]
    assert "hush-hush" not in json.dumps(events)


def test_another_host_than_expected_answers_with_its_facts(tmp_path: Path, state: Path) -> None:
    stale = {**asdict(facts.read()), "memory": 1}
    (event,) = agent(state, request("apply", file(tmp_path / "a", "x"), facts=stale))
    assert event == {"event": "facts", "facts": asdict(facts.read())}
    assert not (tmp_path / "a").exists()


def test_a_plan_leaves_no_trace(tmp_path: Path, state: Path) -> None:
    events = agent(state, request("plan", file(tmp_path / "a", "x")))
    assert [each["event"] for each in events] == ["plan", "end"] and events[1]["empty"] is False
    assert sorted(each.name for each in state.iterdir()) == ["lock"]
    assert not (tmp_path / "a").exists()


def test_old_runs_are_dropped(tmp_path: Path, state: Path) -> None:
    for number in range(runs.KEEP + 5):
        run = runs.Run(f"{number:05}")
        run.create()
        run.write({"event": "end", "ok": True})
    assert len(list((state / "runs").glob("*.jsonl"))) == runs.KEEP


def test_a_run_nobody_saw_the_end_of_is_told_once(state: Path) -> None:
    for name, ends in (("1", [{"event": "end", "ok": False}]), ("2", [])):
        run = runs.Run(name)
        run.create()
        run.write({"event": "started", "run": name, "who": "ann@laptop", "at": 12.5})
        run.write({"event": "error", "what": "bad", "detail": "", "todo": ""})
        for each in ends:
            run.write(each)
    with open(runs.Run("2").path, "ab") as half:
        half.write(b'{"event": "half a li')
    first, second = runs.unseen()
    assert (first["run"], first["ok"], first["who"], first["at"], first["errors"]) == (
        "1",
        False,
        "ann@laptop",
        12.5,
        ["bad"],
    )
    assert second["ok"] is None
    assert runs.unseen() == []


def test_a_reader_sees_whole_events_only(state: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = runs.Run("1")
    run.create()
    line = b'{"event":"end","ok":true}\n'
    parts = [line[:9], line[9:]]

    def alive() -> bool:
        if parts:
            with open(run.path, "ab") as file:
                file.write(parts.pop(0))
        return True

    assert run.relay(alive) == {"event": "end", "ok": True}
    assert capfd.readouterr().out == line.decode()


def test_owing_is_written_before_the_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    wanted = file(tmp_path / "a", "x", noting(tmp_path))
    change = File.change

    def look(self: File, observed: State | None) -> None:
        seen.append([each.name for each in (paths.PENDING).iterdir()])
        change(self, observed)

    monkeypatch.setattr(File, "change", look)
    manifest = Manifest((wanted,), ())
    applying.apply(manifest, engine.plan(manifest), {}, tmp_path, lambda event: None)
    assert len(seen) == 1 and len(seen[0]) == 1 and list((paths.PENDING).iterdir()) == []


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "x"
    paths.write(place, "old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        paths.write(place, "new")
    assert place.read_text() == "old" and [each.name for each in tmp_path.iterdir() if each.is_file()] == ["x"]


def test_a_request_that_never_came_whole_is_no_request(state: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deploykit.agent"],
        input='{"operation": "apply", "resou',
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "DEPLOYKIT_STATE": str(state)},
    )
    assert (done.returncode, done.stdout) == (0, "") and list(state.iterdir()) == []


def test_failed_carries_what_a_person_needs() -> None:
    failure = Failed("it broke", "here", "mend it")
    assert engine.trouble(failure) == {"event": "error", "what": "it broke", "detail": "here", "todo": "mend it"}
