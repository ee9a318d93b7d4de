"""The engine on this machine's own files: plan and apply."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from deploykit.agent import engine
from deploykit.agent.resource import Action, NotYet, Resource, Secret, State
from deploykit.agent.resources import Absent, Directory, Link

from .applied import GROUP, USER, Apply, errors, file, noting, plan


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


@dataclass(frozen=True, kw_only=True)
class Broken(Resource):
    """Something in its place makes even looking at it fail."""

    path: str
    error: str = "ValueError"

    @property
    def key(self) -> str:
        return f"broken {self.path}"

    def wanted(self) -> State:
        return {"there": True}

    def observe(self) -> State | None:
        raise {"ValueError": ValueError("hush"), "OSError": IsADirectoryError(21, "Is a directory", self.path)}[
            self.error
        ]

    def change(self, observed: State | None) -> None:
        raise AssertionError("it cannot be looked at")

    def remove(self) -> None:
        raise TypeError("hush")


@pytest.mark.parametrize("error", ["ValueError", "OSError"])
def test_what_fails_of_an_app_leaves_the_host_and_the_others_alone(
    tmp_path: Path, apply: Apply, told: list[dict[str, Any]], error: str
) -> None:
    evil, after = Broken(path="/x", error=error, app="evil"), replace(file(tmp_path / "after", "x"), app="evil")
    bank, ours = replace(file(tmp_path / "bank", "x"), app="bank"), file(tmp_path / "ours", "x")
    seen = plan(evil, after, bank, ours)
    assert [each.app for each in seen.problems] == ["evil"] and not seen.hopeless
    count, ok = apply(evil, after, bank, ours)
    assert (count, ok) == (2, False)
    assert (tmp_path / "bank").exists() and (tmp_path / "ours").exists() and not (tmp_path / "after").exists()
    assert apply(evil, after, bank, ours)[1] is False, "each time"
    assert "hush" not in json.dumps([*told, *(engine.trouble(each) for each in seen.problems)])
    assert plan(replace(evil, app="")).hopeless


def test_what_cannot_be_removed_of_an_app_stays_ours(tmp_path: Path, apply: Apply, told: list[dict[str, Any]]) -> None:
    bank, new = replace(file(tmp_path / "bank", "x"), app="bank"), file(tmp_path / "new", "x")
    bank.change(None)
    engine.remember([Broken(path="/x", app="evil"), bank])
    assert apply(new) == (2, False)
    assert [each["app"] for each in errors(told)] == ["evil"] and not (tmp_path / "bank").exists()
    assert {each.key for each in engine.owned()} == {"broken /x", new.key}
