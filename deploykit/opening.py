"""Connections are opened, and the agent there is made ready, while the configuration is still being read.

Nearly every command goes where the one before it went. So where that was is remembered, and the first thing that a
command does is to open a connection there: what it needs of its own and what the host needs of its own take place side
by side. When the file then says something else, the connection is closed again: the agent there was asked for nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deploykit import cache, worktree
from deploykit.channel import Exchange
from deploykit.transport import Confirm, Ssh, Target

# The interpreter changes between threads every 5 ms unless one waits. An opening waits for the host a dozen times, and
# must not wait for the modules that are loaded meanwhile each time that it has an answer.
_SWITCH = 0.0005  # seconds


class Opening:
    """A connection that is being opened, and one command on it that is being started, in a thread of their own.

    A thread that nobody waits for any more (Ctrl-C, an error meanwhile) does not hold up the end of the program.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.ssh = Ssh(target, self._ask)
        self._confirm: Confirm | None = None
        self._allowed = threading.Event()
        self._thread: threading.Thread | None = None
        self._command = ""
        self._exchange: Exchange | None = None
        self._raised: BaseException | None = None

    def begin(self, command: str) -> None:
        """Begins, unless that has been done."""
        if self._thread is None:
            self._command = command
            self._thread = threading.Thread(target=self._open, daemon=True)
            self._thread.start()

    def allow(self, confirm: Confirm) -> None:
        """Lets it ask about an unknown host key: until then such a question waits."""
        self._confirm = confirm
        self._allowed.set()

    def wait(self, command: str) -> Exchange | None:
        """Waits until the connection stands; the command that was started on it, if it is this one.

        Raises what opening it raised.
        """
        self.begin(command)
        assert self._thread is not None
        self._thread.join()
        if self._raised is not None:
            raise self._raised
        if self._command == command or self._exchange is None:
            return self._exchange
        self._exchange.close_write()  # an agent that nobody asks for anything ends
        return None

    def close(self) -> None:
        """Hangs up."""
        self.ssh.close()

    def _open(self) -> None:
        try:
            self.ssh.open()
            self._exchange = self.ssh.exec(self._command)
        except BaseException as error:  # noqa: BLE001
            self._raised = error

    def _ask(self, host: str, kind: str, fingerprint: str) -> bool:
        self._allowed.wait()
        assert self._confirm is not None
        return self._confirm(host, kind, fingerprint)


class Ahead:
    """Openings to where the same command, for the same file and hosts, went before: begun when this is made."""

    def __init__(self, file: Path, hosts: str) -> None:
        name = hashlib.sha256(f"{file.absolute()}\0{hosts}".encode()).hexdigest()[:24]
        self._place = cache.FOLDER / "openings" / f"{name}.json"
        self._remembered: dict[str, Any] = {}
        self._openings: dict[str, Opening] = {}
        self._lock = threading.Lock()  # hosts are done side by side
        sys.setswitchinterval(_SWITCH)
        # A damaged one, or one of another version of deploykit, is made anew.
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, KeyError):
            for host, said in json.loads(self._place.read_text()).items():
                opening = Opening(_target(said["target"]))
                opening.begin(said["command"])
                self._remembered[host], self._openings[host] = said, opening
                for top, places in said["sources"]:  # git is asked meanwhile for what it was asked then
                    worktree.begin(Path(top), places)

    def take(self, host: str, target: Target) -> Opening:
        """The opening to a host, which is there: begun, if this is where it was to be found the last time."""
        begun = self._openings.pop(host, None)
        if begun is not None and begun.target == target:
            return begun
        return Opening(target)

    def remember(self, host: str, target: Target, command: str) -> None:
        """For the next command. Not for a Vagrant machine: another one may have its address by then."""
        if target.ssh_config:
            return
        said = {
            "target": {**asdict(target), "identity": str(target.identity or "")},
            "command": command,
            "sources": [[str(top), list(places)] for top, places in worktree.surveyed()],
        }
        with self._lock:
            if not said["sources"]:  # a command that reads none leaves those of the others
                said["sources"] = self._remembered.get(host, {}).get("sources", [])
            if self._remembered.get(host) != said:
                self._remembered[host] = said
                with contextlib.suppress(OSError):  # a full or read-only home only makes it slower
                    cache.keep(self._place, json.dumps(self._remembered))


def _target(said: Mapping[str, Any]) -> Target:
    return Target(**{**said, "identity": Path(said["identity"]) if said["identity"] else None})
