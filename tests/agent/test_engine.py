"""The engine on this machine's own files: plan, apply, what is owed."""

from __future__ import annotations

import getpass
import grp
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from deploykit.agent import applying, engine
from deploykit.agent.engine import Manifest
from deploykit.agent.resource import Action, NotYet, Resource, Secret, State
from deploykit.agent.resources import Absent, Directory, File, Link

USER, GROUP = getpass.getuser(), grp.getgrgid(os.getgid()).gr_name
Apply = Callable[..., tuple[int, bool]]


@pytest.fixture
def told() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def apply(tmp_path: Path, told: list[dict[str, Any]]) -> Apply:
    """Applies resources; (number of changes, whether all went well)."""

    def work(*resources: Resource) -> tuple[int, bool]:
        told.clear()
        return applying.apply(Manifest(resources, ()), {}, tmp_path, told.append)

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
