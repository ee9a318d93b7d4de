"""root by sudo, with a password or without, and commands that hold no value from outside."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from test_remote import Local, agent, kinds, state, talk  # noqa: F401 - fixtures

from deploykit.bundle import Bundle
from deploykit.errors import DeploykitError
from deploykit.remote import Event, Remote


def sudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A stand-in for sudo on PATH; the real one is tried on real hosts."""
    place = tmp_path / "bin/sudo"
    place.parent.mkdir()
    place.write_text(f"#!/bin/sh\n{script}\n")
    place.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place.parent}:{os.environ['PATH']}")


ASKS = """
case $1 in
-n) echo 'sudo: a password is required' >&2; exit 1;;
-k) shift 4; password=$(dd bs=1 count=5 2>/dev/null)
    [ "$password" = open ] || { echo 'sudo: no password was provided; 1 incorrect password attempt' >&2; exit 1; }
    exec "$@";;
esac
"""


def test_sudo_asks_once(tmp_path: Path, state: Path, agent: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    # dd reads the newline, too: command substitution drops it
    sudo(tmp_path, monkeypatch, ASKS)
    talk(Local(state), agent, {"operation": "facts"})
    asked: list[str] = []

    def password(question: str) -> str:
        asked.append(question)
        return "open"

    transport = Local(state, user="ann")
    remote = Remote("web1", transport, agent, password, {})
    for _ in range(2):
        assert kinds(list(remote.events({"who": "x", "digest": "", "operation": "facts"}))) == ["facts"]
    assert asked == ["sudo password of ann on web1"]
    assert "open" not in " ".join(transport.commands).replace("fdopen", "")

    wrong = Remote("web1", Local(state, user="ann"), agent, lambda question: "shut", {})
    with pytest.raises(DeploykitError, match="sudo does not accept the password"):
        list(wrong.events({"who": "x", "digest": "", "operation": "facts"}))


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'ann is not in the sudoers file.' >&2; exit 1", ("ann may not become root there", "as a sudoer")),
        ("echo 'sh: 1: sudo: not found' >&2; exit 127", ("ann is not root and there is no sudo", "log in as root")),
    ],
)
def test_no_way_to_become_root(
    tmp_path: Path,
    state: Path,
    agent: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    words: tuple[str, ...],
) -> None:
    talk(Local(state), agent, {"operation": "facts"})
    sudo(tmp_path, monkeypatch, script)
    with pytest.raises(DeploykitError) as caught:
        talk(Local(state, user="ann"), agent, {"operation": "facts"})
    for word in (*words, "host web1"):
        assert word in str(caught.value)


def odd(**values: Any) -> Event:
    return {"operation": "facts", **values}


def test_values_from_outside_never_reach_a_shell(state: Path, agent: Bundle) -> None:
    transport = Local(state)
    talk(transport, agent, odd(who="$(touch /tmp/x); '\"`id`"))
    assert not [each for each in transport.commands if "touch" in each]
