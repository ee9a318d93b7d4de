"""Connections that are opened before it is known whether they are needed. SSH itself is a fake here; see hosts/."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from deploykit import cache, opening, worktree
from deploykit.channel import Exchange
from deploykit.errors import DeploykitError
from deploykit.opening import Ahead, Opening
from deploykit.transport import Confirm, Target

WEB = Target("web1", "203.0.113.5", "root", 22, Path("/keys/id"), "ssh-ed25519 AAAA")
OTHER = Target("web1", "203.0.113.6")


class Command:
    """One that runs on a host; `closed` when its input was."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.closed = False

    def close_write(self) -> None:
        self.closed = True


class Ssh:
    """Notes who is called. `strange`: the host shows a key that nobody knows."""

    made: ClassVar[list[Ssh]] = []
    strange = False
    failure: Exception | None = None

    def __init__(self, target: Target, confirm: Confirm) -> None:
        self.target, self.confirm = target, confirm
        self.commands: list[Command] = []
        self.opened = threading.Event()
        self.made.append(self)

    def open(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self.strange and not self.confirm(self.target.address, "ssh-ed25519", "SHA256:x"):
            raise DeploykitError("refused")
        self.opened.set()

    def exec(self, command: str) -> Command:
        self.commands.append(Command(command))
        return self.commands[-1]


@pytest.fixture(autouse=True)
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Ssh]]:
    monkeypatch.setattr(Ssh, "made", [])
    monkeypatch.setattr(opening, "Ssh", Ssh)
    monkeypatch.setattr(cache, "FOLDER", tmp_path / "cache")
    monkeypatch.setattr("sys.setswitchinterval", lambda _: None)
    yield Ssh
    for each in threading.enumerate():
        if each is not threading.main_thread():
            each.join(5)


def text(exchange: Exchange | None) -> str:
    assert isinstance(exchange, Command)
    return exchange.text


def remembered(tmp_path: Path, target: Target = WEB, command: str = "agent") -> None:
    Ahead(tmp_path / "deploykit.toml", "web1").remember("web1", target, command)


def test_the_second_command_finds_its_connection_open(tmp_path: Path, ssh: type[Ssh]) -> None:
    remembered(tmp_path)
    assert ssh.made == []
    ahead = Ahead(tmp_path / "deploykit.toml", "web1")
    (begun,) = ssh.made
    assert begun.opened.wait(5), "before anybody asked for it"
    found = ahead.take("web1", WEB)
    assert text(found.wait("agent")) == "agent"
    assert ssh.made == [begun] and len(begun.commands) == 1


@pytest.mark.parametrize("hosts", ["", "web2"])
def test_each_choice_of_hosts_has_its_own_memory(tmp_path: Path, ssh: type[Ssh], hosts: str) -> None:
    remembered(tmp_path)
    Ahead(tmp_path / "deploykit.toml", hosts)
    Ahead(tmp_path / "other" / "deploykit.toml", "web1")
    assert ssh.made == []


def test_a_host_that_has_moved_is_looked_for_where_it_is(tmp_path: Path, ssh: type[Ssh]) -> None:
    remembered(tmp_path)
    ahead = Ahead(tmp_path / "deploykit.toml", "web1")
    found = ahead.take("web1", OTHER)
    assert found.ssh is not ssh.made[0]
    assert text(found.wait("agent")) == "agent"
    assert [each.target for each in ssh.made] == [WEB, OTHER]


def test_another_agent_is_started_on_the_same_connection(tmp_path: Path, ssh: type[Ssh]) -> None:
    remembered(tmp_path)
    found = Ahead(tmp_path / "deploykit.toml", "web1").take("web1", WEB)
    assert found.wait("newer agent") is None, "whoever asks starts it"
    assert len(ssh.made) == 1
    assert ssh.made[0].commands[0].closed, "the one that was started in vain ends"


def test_nobody_is_asked_before_the_file_was_read(
    tmp_path: Path, ssh: type[Ssh], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "strange", True)
    remembered(tmp_path)
    found = Ahead(tmp_path / "deploykit.toml", "web1").take("web1", WEB)
    assert not ssh.made[0].opened.wait(0.1)
    asked: list[tuple[str, str, str]] = []

    def confirm(*key: str) -> bool:
        asked.append(key)  # type: ignore[arg-type]
        return True

    found.allow(confirm)
    assert text(found.wait("agent")) == "agent"
    assert asked == [("203.0.113.5", "ssh-ed25519", "SHA256:x")]


def test_what_went_wrong_is_told_when_it_matters(ssh: type[Ssh], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "failure", DeploykitError("it does not answer"))
    begun = Opening(WEB)
    begun.begin("agent")
    for _ in range(2):
        with pytest.raises(DeploykitError, match="does not answer"):
            begun.wait("agent")
    assert len(ssh.made) == 1


@pytest.mark.parametrize(
    "damaged",
    ["", "[]", "{", '{"web1": 1}', '{"web1": {}}', '{"web1": {"target": {"name": 1}, "command": "x"}}', "\udcff"],
)
def test_a_damaged_memory_is_none(tmp_path: Path, ssh: type[Ssh], damaged: str) -> None:
    remembered(tmp_path)
    (place,) = (cache.FOLDER / "openings").iterdir()
    place.write_bytes(damaged.encode("utf-8", "surrogateescape"))
    ahead = Ahead(tmp_path / "deploykit.toml", "web1")
    assert ssh.made == []
    ahead.remember("web1", WEB, "agent")
    assert json.loads(place.read_text())["web1"]["command"] == "agent"


def test_a_vagrant_machine_is_not_remembered(tmp_path: Path) -> None:
    remembered(tmp_path, Target("web1", "default", ssh_config="Host default\n"))
    assert not (cache.FOLDER / "openings").exists()


def test_a_home_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    cache.FOLDER.parent.mkdir(exist_ok=True)
    cache.FOLDER.write_text("in the way")
    remembered(tmp_path)


def test_git_is_asked_ahead_for_what_it_was_asked_before(
    tmp_path: Path, ssh: type[Ssh], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[Path, list[str]]] = []
    monkeypatch.setattr(worktree, "begin", lambda top, places: begun.append((top, places)))
    monkeypatch.setattr(worktree, "_surveyed", {(tmp_path, ("one", "two")): None})
    remembered(tmp_path)
    monkeypatch.setattr(worktree, "_surveyed", {})
    remembered(tmp_path)  # by a command that reads no sources
    begun.clear()
    Ahead(tmp_path / "deploykit.toml", "web1")
    assert begun == [(tmp_path, ["one", "two"])]
