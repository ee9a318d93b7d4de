"""The engine on this machine's own files: plan, apply, what is owed, what is owned, the lock, the runs, the journal."""

from __future__ import annotations

import getpass
import grp
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from deploykit.agent import engine, facts, lock, paths, process, runs
from deploykit.agent.engine import Manifest
from deploykit.agent.resource import Action, Failed, NotYet, Resource, Secret, State, encode
from deploykit.agent.resources import Absent, Directory, File, Link

USER, GROUP = getpass.getuser(), grp.getgrgid(os.getgid()).gr_name
Apply = Callable[..., tuple[int, bool]]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """deploykit's memory in a folder of the test's."""
    place = tmp_path / "state"
    before = paths.STATE
    for name, value in vars(paths).items():
        if isinstance(value, Path):
            monkeypatch.setattr(paths, name, place / value.relative_to(before))
    place.mkdir()
    return place


@pytest.fixture
def told() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def apply(tmp_path: Path, told: list[dict[str, Any]]) -> Apply:
    """Applies resources; (number of changes, whether all went well)."""

    def work(*resources: Resource) -> tuple[int, bool]:
        told.clear()
        return engine.apply(Manifest(resources, ()), {}, tmp_path, told.append)

    return work


def plan(*resources: Resource) -> engine.Plan:
    return engine.plan(Manifest(resources, ()))


def file(path: Path, content: str | Secret, *actions: Action) -> File:
    return File(str(path), content, USER, GROUP, actions=actions)


def noting(tmp_path: Path, name: str = "note", check: tuple[str, ...] = ()) -> Action:
    """An action that leaves a line each time it is done."""
    return Action(name, (("sh", "-c", f"echo {name} >> {tmp_path}/notes"),), check)


def notes(tmp_path: Path) -> list[str]:
    place = tmp_path / "notes"
    return place.read_text().split() if place.exists() else []


def errors(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for each in told if each["event"] == "error"]


@dataclass(frozen=True)
class Stubborn(Resource):
    """Writes what it should to a file; something else undoes it: at once, or at the end of the run."""

    path: str
    when: str = "at once"

    @property
    def key(self) -> str:
        return f"stubborn {self.path}"

    def wanted(self) -> State:
        return {"text": "mine"}

    def observe(self) -> State | None:
        place = Path(self.path)
        return {"text": place.read_text()} if place.exists() else None

    def change(self, observed: State | None) -> None:
        Path(self.path).write_text("theirs" if self.when == "at once" else "mine")

    def remove(self) -> None:
        Path(self.path).unlink()


@dataclass(frozen=True)
class Needs(Resource):
    """Cannot be looked at before a file is there."""

    path: str
    first: str

    @property
    def key(self) -> str:
        return f"needs {self.path}"

    def wanted(self) -> State:
        return {"there": True}

    def observe(self) -> State | None:
        if not Path(self.first).exists():
            raise NotYet(f"{self.first} is not there")
        return {"there": True} if Path(self.path).exists() else None

    def change(self, observed: State | None) -> None:
        Path(self.path).touch()

    def remove(self) -> None:
        Path(self.path).unlink()


@dataclass(frozen=True)
class Data(Needs):
    """What no plan removes."""

    removable: ClassVar[bool] = False


@dataclass(frozen=True)
class Several(Resource):
    """Changed together with its like, in one go."""

    together: ClassVar[bool] = True
    calls: ClassVar[list[int]] = []
    path: str

    @property
    def key(self) -> str:
        return f"several {self.path}"

    def wanted(self) -> State:
        return {"there": True}

    def observe(self) -> State | None:
        return {"there": True} if Path(self.path).exists() else None

    def change(self, observed: State | None) -> None:
        raise AssertionError("alone")

    @classmethod
    def change_together(cls, several: Any) -> None:
        cls.calls.append(len(several))
        for each in several:
            Path(each.path).touch()


@dataclass(frozen=True)
class Deadly(Resource):
    """The process dies right after the change, as by kill -9; the second time it lives."""

    path: str

    @property
    def key(self) -> str:
        return f"deadly {self.path}"

    def wanted(self) -> State:
        return {"there": True}

    def observe(self) -> State | None:
        return {"there": True} if Path(self.path).exists() else None

    def change(self, observed: State | None) -> None:
        Path(self.path).touch()
        os.kill(os.getpid(), 9)


def in_a_process(work: Callable[[], Any]) -> int:
    """The exit status of a process that does this; -9: it was killed."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# -- plan and apply --------------------------------------------------------------------------------


def test_changes_in_order_then_nothing(tmp_path: Path, apply: Apply, told: list[dict[str, Any]]) -> None:
    wanted = (
        Directory(str(tmp_path / "d"), USER, GROUP),
        file(tmp_path / "d/f", "one\n"),
        Link(str(tmp_path / "l"), "d/f"),
        Absent(str(tmp_path / "old")),
    )
    (tmp_path / "old").touch()
    before = plan(*wanted)
    assert [(each.key.split()[0], each.verb) for each in before.changes] == [
        ("directory", "create"),
        ("file", "create"),
        ("link", "create"),
        ("absent", "change"),
    ]
    assert not (tmp_path / "d").exists(), "a plan changes nothing"
    assert apply(*wanted) == (4, True)
    assert [each["key"] for each in told if each["event"] == "changing"] == [each.key for each in wanted]
    assert (tmp_path / "l").read_text() == "one\n" and not (tmp_path / "old").exists()
    assert plan(*wanted).empty
    assert apply(*wanted) == (0, True) and told == []


def test_a_plan_shows_diffs_and_consequences_but_no_secret(tmp_path: Path, apply: Apply) -> None:
    apply(file(tmp_path / "a", "one\ntwo\n"), file(tmp_path / "s", Secret("hush\n")))
    event = plan(
        file(tmp_path / "a", "one\n2\n", noting(tmp_path)), file(tmp_path / "s", Secret("hush-hush\n"))
    ).event()
    first, second = event["changes"]
    assert first["differences"] == [{"name": "content", "diff": "@@ -1,2 +1,2 @@\n one\n-two\n+2"}]
    assert first["actions"] == ["note"]
    assert second["differences"] == [{"name": "content", "old": "(secret)", "new": "(secret)"}]
    assert "hush" not in json.dumps(event)


def test_what_was_altered_by_hand_is_mended(tmp_path: Path, apply: Apply) -> None:
    wanted = file(tmp_path / "a", "mine\n")
    apply(wanted)
    (tmp_path / "a").write_text("theirs\n")
    (tmp_path / "a").chmod(0o666)
    (change,) = plan(wanted).changes
    assert {each.name for each in change.differences} == {"content", "mode"}
    assert apply(wanted) == (1, True) and (tmp_path / "a").read_text() == "mine\n"


def test_what_cannot_be_seen_yet_is_planned_for_later(tmp_path: Path, apply: Apply) -> None:
    wanted = (file(tmp_path / "first", ""), Needs(str(tmp_path / "second"), str(tmp_path / "first")))
    assert [(each.key.split()[0], each.verb) for each in plan(*wanted).changes] == [
        ("file", "create"),
        ("needs", "later"),
    ]
    assert apply(*wanted) == (2, True)
    assert plan(*wanted).empty


def test_a_recipe_in_the_wrong_order_is_told(tmp_path: Path, apply: Apply, told: list[dict[str, Any]]) -> None:
    wanted = (Needs(str(tmp_path / "second"), str(tmp_path / "first")), file(tmp_path / "first", ""))
    assert apply(*wanted) == (0, False)
    (error,) = errors(told)
    assert "needs " in error["what"] and "cannot be looked at yet" in error["what"]
    assert "must come after" in error["todo"] and not (tmp_path / "first").exists()


def test_packages_and_the_like_are_changed_in_one_go(tmp_path: Path, apply: Apply, told: list[dict[str, Any]]) -> None:
    Several.calls.clear()
    there = Several(str(tmp_path / "0"))
    (tmp_path / "0").touch()
    wanted = (there, Several(str(tmp_path / "1")), file(tmp_path / "f", ""), Several(str(tmp_path / "2")))
    assert apply(*wanted) == (3, True)
    assert Several.calls == [2]
    assert [each["key"].count("several") for each in told] == [2, 0]


def test_what_does_not_take_is_an_error_that_names_it(tmp_path: Path, apply: Apply, told: list[dict[str, Any]]) -> None:
    after = file(tmp_path / "after", "")
    assert apply(Stubborn(str(tmp_path / "s")), after)[1] is False
    (error,) = errors(told)
    assert f"stubborn {tmp_path}/s is not as wanted after it was changed" in error["what"]
    assert "text (theirs instead of mine)" in error["detail"]
    assert not (tmp_path / "after").exists(), "nothing is built on what failed"


def test_the_last_look_catches_what_is_undone_meanwhile(
    tmp_path: Path, apply: Apply, told: list[dict[str, Any]]
) -> None:
    undo = Action("undo", (("sh", "-c", f"echo theirs > {tmp_path}/s"),))
    assert apply(Stubborn(str(tmp_path / "s"), "later", actions=(undo,))) == (2, False)
    (error,) = errors(told)
    assert "is not as wanted after it was changed" in error["what"] and error["detail"] == "still different: text"
    assert "something else on the host changes it back" in error["todo"]


def test_a_secret_that_does_not_take_is_not_shown(tmp_path: Path, apply: Apply, told: list[dict[str, Any]]) -> None:
    undo = Action("undo", (("sh", "-c", f"echo theirs > {tmp_path}/s"),))
    assert apply(file(tmp_path / "s", Secret("hush-hush"), undo))[1] is False
    assert errors(told) and "hush" not in json.dumps(told)


# -- what is owed ----------------------------------------------------------------------------------


def test_an_action_is_done_once_however_many_need_it(
    tmp_path: Path, apply: Apply, told: list[dict[str, Any]], state: Path
) -> None:
    note = noting(tmp_path)
    assert apply(file(tmp_path / "a", "", note), file(tmp_path / "b", "", note)) == (3, True)
    assert notes(tmp_path) == ["note"] and [each for each in told if each["event"] == "action"] == [
        {"event": "action", "name": "note"}
    ]
    assert list((state / "pending").iterdir()) == []
    apply(file(tmp_path / "a", "", note), file(tmp_path / "b", "", note))
    assert notes(tmp_path) == ["note"], "nothing changed, nothing follows"


def test_killed_between_change_and_action(tmp_path: Path, apply: Apply, told: list[dict[str, Any]]) -> None:
    note = noting(tmp_path)
    wanted = (file(tmp_path / "a", "new", note), Deadly(str(tmp_path / "b"), actions=(noting(tmp_path, "second"),)))
    assert in_a_process(lambda: apply(*wanted)) == -9
    assert (tmp_path / "a").read_text() == "new" and notes(tmp_path) == []
    left = plan(*wanted)
    assert left.changes == () and sorted(left.owed) == ["note", "second"] and not left.empty
    assert [each["verb"] for each in left.event()["changes"]] == ["run", "run"]
    assert apply(*wanted) == (2, True)
    assert sorted(notes(tmp_path)) == ["note", "second"]
    assert plan(*wanted).empty


def test_killed_in_the_action_itself(tmp_path: Path, apply: Apply) -> None:
    # The command kills the process that runs it, then says nothing more.
    killer = f"echo began >> {tmp_path}/notes; test -e {tmp_path}/again || {{ touch {tmp_path}/again; kill -9 $PPID; }}"
    wanted = file(tmp_path / "a", "x", Action("reload", (("sh", "-c", killer),)))
    assert in_a_process(lambda: apply(wanted)) == -9
    assert plan(wanted).owed == ("reload",)
    assert apply(wanted) == (1, True) and notes(tmp_path) == ["began", "began"]
    assert plan(wanted).empty


def test_a_check_that_says_no_puts_the_old_files_back(
    tmp_path: Path, apply: Apply, told: list[dict[str, Any]], state: Path
) -> None:
    check = ("sh", "-c", f"! grep -H bad {tmp_path}/a")
    note = noting(tmp_path, check=check)
    old = (file(tmp_path / "a", "good\n", note), Link(str(tmp_path / "l"), "here", actions=(note,)))
    assert apply(*old) == (3, True)
    (tmp_path / "a").chmod(0o600)
    wanted = (
        file(tmp_path / "a", "bad\n", note),
        file(tmp_path / "new", "x", note),
        Link(str(tmp_path / "l"), "there", actions=(note,)),
    )
    assert apply(*wanted)[1] is False
    (error,) = errors(told)
    assert "refuses the new configuration; the old one is back and still in use" in error["what"]
    assert "a:bad" in error["detail"] and f"put back: {tmp_path}/a" in error["detail"]
    assert "deploy again" in error["todo"]
    assert (tmp_path / "a").read_text() == "good\n" and (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "new").exists() and os.readlink(tmp_path / "l") == "here"
    assert notes(tmp_path) == ["note"], "the service was never told"
    assert list((state / "pending").iterdir()) == []
    assert len(plan(*wanted).changes) == 3, "it is still wanted"
    assert apply(file(tmp_path / "a", "good again\n", note), old[1])[1] is True
    assert notes(tmp_path) == ["note", "note"]


def test_put_back_is_what_was_there_before_the_interruption(tmp_path: Path, apply: Apply) -> None:
    note = noting(tmp_path, check=("sh", "-c", f"! grep -q bad {tmp_path}/a"))
    apply(file(tmp_path / "a", "good", note))
    bad = file(tmp_path / "a", "bad", note)
    assert in_a_process(lambda: apply(bad, Deadly(str(tmp_path / "b")))) == -9
    assert (tmp_path / "a").read_text() == "bad"
    assert apply(bad, Deadly(str(tmp_path / "b")))[1] is False
    assert (tmp_path / "a").read_text() == "good"


def test_a_failing_action_stays_owed(tmp_path: Path, apply: Apply, told: list[dict[str, Any]]) -> None:
    script = f"test -e {tmp_path}/healed || {{ echo cannot reload >&2; exit 3; }}"
    wanted = file(tmp_path / "a", "", Action("reload", (("sh", "-c", script),)))
    assert apply(wanted)[1] is False
    (error,) = errors(told)
    assert "ended with 3" in error["what"] and "cannot reload" in error["detail"]
    assert plan(wanted).owed == ("reload",)
    (tmp_path / "healed").touch()
    assert apply(wanted) == (1, True) and plan(wanted).empty


# -- ownership -------------------------------------------------------------------------------------


def test_what_nobody_wants_any_more_is_removed(tmp_path: Path, apply: Apply, told: list[dict[str, Any]]) -> None:
    note = noting(tmp_path)
    folder = Directory(str(tmp_path / "d"), USER, GROUP)
    inside, stays = file(tmp_path / "d/f", "x", note), file(tmp_path / "stays", "")
    apply(folder, inside, stays)
    (tmp_path / "theirs").touch()
    left = plan(stays)
    assert left.unwanted == (inside, folder), "backwards: what is inside goes first"
    assert [(each["key"], each["verb"]) for each in left.event()["changes"]] == [
        (inside.key, "remove"),
        (folder.key, "remove"),
    ]
    assert left.event()["changes"][0]["actions"] == ["note"]
    assert (tmp_path / "d/f").exists()
    assert apply(stays) == (3, True)
    assert not (tmp_path / "d").exists() and (tmp_path / "stays").exists() and (tmp_path / "theirs").exists()
    assert notes(tmp_path) == ["note", "note"], "what follows from a change follows from a removal"
    assert plan(stays).empty


def test_data_is_never_removed(tmp_path: Path, apply: Apply) -> None:
    first, data = file(tmp_path / "first", ""), Data(str(tmp_path / "rows"), str(tmp_path / "first"), app="blog")
    apply(first, data)
    left = plan(first)
    assert left.empty and left.kept == (data.key,)
    assert apply(first) == (0, True) and (tmp_path / "rows").exists()
    assert plan(first).kept == (data.key,), "it is remembered"


def test_a_removal_that_was_interrupted_goes_on(tmp_path: Path, apply: Apply) -> None:
    gone, other = file(tmp_path / "gone", "x"), file(tmp_path / "other", "x")
    apply(gone, other)
    assert in_a_process(lambda: apply(Deadly(str(tmp_path / "b")))) == -9
    assert not (tmp_path / "gone").exists()
    gone.change(None)  # as if the kill had come before it
    assert [each.key for each in plan(Deadly(str(tmp_path / "b"))).unwanted] == [gone.key]
    assert apply(Deadly(str(tmp_path / "b"))) == (1, True)
    assert not (tmp_path / "gone").exists()


def test_what_a_failed_run_made_is_owned(tmp_path: Path, apply: Apply) -> None:
    assert apply(file(tmp_path / "half", ""), Stubborn(str(tmp_path / "s")))[1] is False
    assert [each.key.split()[0] for each in plan().unwanted] == ["stubborn", "file"]


def test_what_was_there_before_is_not_taken_for_ours_when_gone(tmp_path: Path, apply: Apply) -> None:
    apply(file(tmp_path / "a", "x"))
    (tmp_path / "a").unlink()
    assert plan().empty, "nothing is there to remove"


def test_the_memory_of_what_is_ours_holds_no_secret(tmp_path: Path, apply: Apply, state: Path) -> None:
    apply(file(tmp_path / "s", Secret("hush-hush")))
    assert "hush" not in paths.MANIFEST.read_text() and paths.MANIFEST.stat().st_mode & 0o077 == 0
    assert [each.key for each in plan().unwanted] == [f"file {tmp_path}/s"]


def test_a_recipe_that_is_gone_is_no_obstacle(tmp_path: Path, apply: Apply) -> None:
    apply(file(tmp_path / "a", ""))
    kept = json.loads(paths.MANIFEST.read_text())
    paths.write_json(paths.MANIFEST, [{"recipes.gone:Thing": {"path": "/x"}}, {"no.such:X": {}}, *kept])
    assert [each.key for each in plan().unwanted] == [f"file {tmp_path}/a"]


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
    monkeypatch.setattr(process, "_kept", ())

    def die(seconds: float) -> None:
        lock.settle()
        script = f"(sleep {seconds}; echo ended > {tmp_path}/ended) & kill -9 $PPID"
        process.run(["sh", "-c", script])

    assert in_a_process(lambda: die(0.6)) == -9
    assert not (tmp_path / "ended").exists()
    lock.settle()
    assert (tmp_path / "ended").exists()


def test_but_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_kept", ())

    def die() -> None:
        lock.settle()
        process.run(["sh", "-c", "sleep 3 & kill -9 $PPID"])

    assert in_a_process(die) == -9
    with pytest.raises(Failed) as caught:
        lock.settle(patience=0.1)
    assert "still goes on" in caught.value.what and "sleep" in caught.value.detail
    assert "end it, then deploy again" in caught.value.todo


def test_what_a_killed_writer_left_is_cleared_away(tmp_path: Path) -> None:
    def die() -> None:
        os.replace = lambda *arguments: os.kill(os.getpid(), 9)  # type: ignore[assignment,misc]
        os.rename = lambda *arguments, **values: os.kill(os.getpid(), 9)  # type: ignore[assignment,misc]
        if not list(tmp_path.glob(".a.*")):
            paths.write(tmp_path / "a", "half")
        file(tmp_path / "b", "half").change(None)

    assert [in_a_process(die), in_a_process(die)] == [-9, -9]
    assert len(list(tmp_path.glob(".a.*"))) == len(list(tmp_path.glob(".b.*"))) == 1
    (tmp_path / ".a.1.deploykit").touch()  # of a process that lives
    paths.write(tmp_path / "a", "whole")
    file(tmp_path / "b", "whole").change(None)
    assert sorted(each.name for each in tmp_path.iterdir() if each.is_file()) == [".a.1.deploykit", "a", "b"]


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


def test_a_reader_sees_whole_events_only(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    assert capsys.readouterr().out == line.decode()


def test_owing_is_written_before_the_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    wanted = file(tmp_path / "a", "x", noting(tmp_path))
    change = File.change

    def look(self: File, observed: State | None) -> None:
        seen.append([each.name for each in (tmp_path / "state/pending").iterdir()])
        change(self, observed)

    monkeypatch.setattr(File, "change", look)
    engine.apply(Manifest((wanted,), ()), {}, tmp_path, lambda event: None)
    assert len(seen) == 1 and len(seen[0]) == 1 and list((tmp_path / "state/pending").iterdir()) == []


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
