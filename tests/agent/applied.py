"""What the tests of the engine share: resources and actions on a test's own files."""

from __future__ import annotations

import getpass
import grp
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploykit.agent import engine
from deploykit.agent.engine import Manifest
from deploykit.agent.resource import Action, Resource, Secret, State
from deploykit.agent.resources import File

USER, GROUP = getpass.getuser(), grp.getgrgid(os.getgid()).gr_name
#: Applies resources; (number of changes, whether all went well).
Apply = Callable[..., tuple[int, bool]]


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
