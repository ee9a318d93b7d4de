"""How many connections nginx may have at once. Only nginx.conf can say it, which is the distribution's: two numbers
of it are raised, the rest stays as it is, and a larger number of the host's owner stays, too."""

from __future__ import annotations

import glob
import os
import re
from typing import ClassVar

from deploykit.agent.dataclass import dataclass
from deploykit.agent.resource import Resource, State
from deploykit.agent.resources import disk

#: Outside of comments: the number of files that a worker may have open, and the number of its connections.
_FILES = re.compile(r"^([ \t]*worker_rlimit_nofile\s+)(\d+)(?=\s*;)", re.MULTILINE)
_CONNECTIONS = re.compile(r"^((?:[^#\n]*[;{\s])?worker_connections\s+)(\d+)(?=\s*;)", re.MULTILINE)
#: Further files at the level of nginx.conf, where the number of files may be set as well; twice is an error.
_FURTHER = "/etc/nginx/modules-enabled/*.conf"
_EVENTS = re.compile(r"^[ \t]*events\s*\{[ \t]*\n?", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Connections(Resource):
    """At least so many `connections` for each worker process of nginx, and twice as many open files.

    A visitor has one, and its request to the app another. Debian's 768 are used up by 768 visitors who send nothing.
    """

    removable: ClassVar[bool] = False  # a number that is too large harms nothing

    path: str
    connections: int

    @property
    def key(self) -> str:
        return f"connections in {self.path}"

    def wanted(self) -> State:
        return {"worker_connections": self.connections, "worker_rlimit_nofile": 2 * self.connections}

    def observe(self) -> State | None:
        try:
            with open(self.path, encoding="utf-8", errors="surrogateescape") as file:
                text = file.read()
        except FileNotFoundError:
            return None
        if not _EVENTS.search(text):
            return self.wanted()  # the owner has it in another file
        files = max(_number(_FILES, text), *map(_number_in, glob.glob(_FURTHER)), 0)
        found = {"worker_connections": _number(_CONNECTIONS, text), "worker_rlimit_nofile": files}
        return {name: min(number, int(str(self.wanted()[name]))) for name, number in found.items()}

    def change(self, observed: State | None) -> None:
        with open(self.path, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
            found = os.fstat(file.fileno())
        now = observed or {}
        if now.get("worker_connections") != self.connections:
            text = _set(
                text, _CONNECTIONS, f"    worker_connections {self.connections};\n", self.connections, after=True
            )
        if now.get("worker_rlimit_nofile") != 2 * self.connections:
            files = 2 * self.connections
            text = _set(text, _FILES, f"worker_rlimit_nofile {files};\n\n", files, after=False)
        data = text.encode("utf-8", "surrogateescape")
        disk.write(self.path, data, found.st_uid, found.st_gid, found.st_mode & 0o7777)


def _set(text: str, pattern: re.Pattern[str], line: str, number: int, *, after: bool) -> str:
    """The text with a number replaced, or else a line of its own at the beginning of `events`, or just before it."""
    if pattern.search(text):
        return pattern.sub(rf"\g<1>{number}", text, count=1)
    events = _EVENTS.search(text)
    assert events is not None  # else nothing would differ
    place = events.end() if after else events.start()
    gap = "\n" if after and not text[:place].endswith("\n") else ""
    return text[:place] + gap + line + text[place:]


def _number(pattern: re.Pattern[str], text: str) -> int:
    found = pattern.search(text)
    return int(found[2]) if found else 0


def _number_in(path: str) -> int:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return _number(_FILES, file.read())
    except OSError:
        return 0
