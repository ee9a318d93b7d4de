"""The environment of an app as a file that web processes, management commands and shells all read alike.

`export NAME='value'` lines, quoted as a POSIX shell reads them: every value arrives as it was given, whatever is
in it (supervisor's `environment=` and systemd's `EnvironmentFile=` each have a quoting of their own that some values
do not survive).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from deploykit.agent.dataclass import dataclass
from deploykit.agent.resource import HostSecret, Joined, Resource, Secret, State
from deploykit.agent.resources import File
from deploykit.agent.store import plain as plain

HEADER = "# Written by deploykit; changes made here are undone by the next deploy.\n"


@dataclass(frozen=True, kw_only=True)
class EnvFile(Resource):
    """`variables` are (name, value) pairs. Root writes, the app's group reads, nobody else."""

    path: str
    variables: tuple[tuple[str, str | Secret | HostSecret | Joined], ...]

    @property
    def key(self) -> str:
        return f"environment {self.path}"

    def values(self, *, make: bool) -> dict[str, str]:
        """Every variable in the clear. With `make`, secrets that the host shall invent are made now."""
        return {name: plain(self.app, value, make=make) for name, value in self.variables}

    def _file(self, values: Mapping[str, str]) -> File:
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in values.items()]
        return File(path=self.path, content=Secret(HEADER + "".join(lines)), group=self.app, mode=0o640)

    def wanted(self) -> State:
        values = self.values(make=False)
        state = self._file(values).wanted()
        state.update({name: Secret(value) for name, value in values.items()})
        return state

    def observe(self) -> State | None:
        values = self.values(make=False)
        file = self._file(values)
        state = file.observe()
        if state is not None:
            same = state.get("content") == file.content  # then there is no need to parse it, which takes a millisecond
            state.update({name: Secret(value) for name, value in values.items()} if same else read(self.path))
        return state

    def change(self, observed: State | None) -> None:
        file = self._file(self.values(make=True))
        file.change(file.observe())

    def remove(self) -> None:
        Path(self.path).unlink(missing_ok=True)


def read(path: str) -> dict[str, Secret]:
    """The variables of an environment file, as far as it can be read as one."""
    try:
        words = shlex.split(Path(path).read_text(), comments=True)
    except (OSError, ValueError):
        return {}
    return {
        name: Secret(value)
        for name, found, value in (word.partition("=") for word in words if word != "export")
        if found
    }
