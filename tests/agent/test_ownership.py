"""What deploykit made is its own to remove; data is nobody's to remove."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deploykit.agent import paths
from deploykit.agent.resource import Secret
from deploykit.agent.resources import Directory

from .applied import GROUP, USER, Apply, Deadly, file, in_a_process, notes, noting, plan
from .test_engine import Data, Stubborn


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
    paths.write_json(
        paths.MANIFEST, {"thing x": {"recipes.gone:Thing": {"path": "/x"}}, "x": {"no.such:X": {}}, **kept}
    )
    assert [each.key for each in plan().unwanted] == [f"file {tmp_path}/a"]


def test_what_an_earlier_deploykit_made_is_owned(tmp_path: Path, apply: Apply) -> None:
    """It remembered a list, without the keys."""
    apply(file(tmp_path / "a", ""), file(tmp_path / "b", ""))
    paths.write_json(paths.MANIFEST, list(json.loads(paths.MANIFEST.read_text()).values()))
    assert [each.key for each in plan(file(tmp_path / "b", "")).unwanted] == [f"file {tmp_path}/a"]
    assert plan(file(tmp_path / "a", ""), file(tmp_path / "b", "")).empty
