"""What must follow a change: done once, whatever is interrupted, and only done when it has taken."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploykit.agent import pending, process
from deploykit.agent.resource import Action
from deploykit.agent.resources import Link

from .applied import Apply, Deadly, errors, file, in_a_process, notes, noting, plan


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


@pytest.fixture
def workers() -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts processes with the title "dk: worker process", and ends what is left of them."""
    with contextlib.ExitStack() as ends:

        def start() -> subprocess.Popen[bytes]:
            argv = ["bash", "-c", "exec -a 'dk: worker process' cat"]
            child = subprocess.Popen(argv, stdin=subprocess.PIPE)
            ends.callback(child.wait)
            ends.callback(child.kill)
            while child.pid not in process.titled("dk: worker process"):
                time.sleep(0.01)
            return child

        yield start


def replacing(command: str) -> Action:
    return Action("reload", (("sh", "-c", command),), replaces="dk: worker process")


def test_a_reload_is_done_when_the_old_workers_are_gone(
    tmp_path: Path, apply: Apply, workers: Callable[[], subprocess.Popen[bytes]]
) -> None:
    old = [workers(), workers()]
    kill = f"kill {old[0].pid}; (sleep 0.4; kill {old[1].pid}) >/dev/null 2>&1 &"
    assert apply(file(tmp_path / "a", "x", replacing(kill))) == (2, True)
    assert [each.poll() for each in old] == [-signal.SIGTERM] * 2
    assert apply(file(tmp_path / "a", "y", replacing("true"))) == (2, True), "there were none to wait for"


def test_a_reload_that_replaces_nothing_is_an_error_and_stays_owed(
    tmp_path: Path,
    apply: Apply,
    told: list[dict[str, Any]],
    workers: Callable[[], subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pending, "PATIENCE", 0.2)
    old = workers()
    wanted = file(tmp_path / "a", "x", replacing("true"))
    assert apply(wanted)[1] is False
    (error,) = errors(told)
    assert "still work with what they had" in error["what"] and str(old.pid) in error["detail"]
    assert plan(wanted).owed == ("reload",)
    old.kill()
    old.wait()
    assert apply(wanted) == (1, True) and plan(wanted).empty


def test_a_failing_action_stays_owed(tmp_path: Path, apply: Apply, told: list[dict[str, Any]]) -> None:
    script = f"test -e {tmp_path}/healed || {{ echo cannot reload >&2; exit 3; }}"
    wanted = file(tmp_path / "a", "", Action("reload", (("sh", "-c", script),)))
    assert apply(wanted)[1] is False
    (error,) = errors(told)
    assert "ended with 3" in error["what"] and "cannot reload" in error["detail"]
    assert plan(wanted).owed == ("reload",)
    (tmp_path / "healed").touch()
    assert apply(wanted) == (1, True) and plan(wanted).empty
