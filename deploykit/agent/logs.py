"""What an app says: the last lines of its programs' logs, and what follows, over rotations and switches of slots.

supervisor keeps a log for each program of each slot; a deploy goes on in the other slot's. Schedules write to the
journal.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

from deploykit.agent import programs, schedule, wire
from deploykit.agent.dataclass import dataclass
from deploykit.agent.deployment import live
from deploykit.agent.resource import Failed
from deploykit.model import layout

NGINX = Path("/var/log/nginx")

#: (where it was said, the line).
Tell = Callable[[str, str], None]

_PAUSE = 0.2  # seconds between two looks
_LONGEST = 1 << 16  # bytes of one line
_BLOCK = 1 << 16
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

#: When a line was written, as gunicorn, Celery, Django, nginx and most others say it near its beginning. Without a zone
#: it is the host's own.
_TIME = re.compile(
    r"(?P<year>\d{4})[-/](?P<month>\d\d)[-/](?P<day>\d\d)[T ](?P<time>\d\d:\d\d:\d\d)(?:[.,]\d+)?"
    r" ?(?P<zone>Z|[+-]\d\d:?\d\d)?"
    r"|\[(?P<day2>\d\d)/(?P<name>[A-Z][a-z][a-z])/(?P<year2>\d{4})[: ](?P<time2>\d\d:\d\d:\d\d) ?(?P<zone2>[+-]\d{4})?"
)


def show(app: str, process: str, *, nginx: bool, lines: int, follow: bool, since: float, tell: Tell) -> None:
    """Tells the last `lines` lines, or all `since` a time (epoch seconds, 0: not asked for); with `follow` what comes.

    `process` "" is the web server; else a process or schedule by its name. Raises Failed when there is none such.
    """
    slot = live(app)
    if slot is None:
        raise Failed(f"{app} is not deployed on this host", todo="`fab deploy` brings it")
    if not nginx and process not in ("", "web") and process in _schedules(app):
        _journal(f"deploykit-{app}.{process}.service", lines, follow, since, lambda line: tell("", line))
        return
    sources = _nginx(app) if nginx else _programs(app, process, slot)
    followed: list[_Followed] = []
    for source in sources:
        followed += [_Followed(source.name, path) for path in source.paths]
        for line in _last(source.files(since), lines, since):
            tell(source.name, line)
    if follow:
        _follow(followed, tell)


@dataclass(frozen=True)
class _Source:
    """Logs of one program, those of the live slot last. `name` is shown before its lines; "": it is the only one."""

    name: str
    paths: tuple[Path, ...]

    def files(self, since: float) -> list[Path]:
        """The files to look into, oldest first: those that supervisor or logrotate put aside, too."""
        paths = self.paths if since else self.paths[-1:]
        return [each for path in paths for each in (*_rotated(path), path) if each.exists()]


def _rotated(path: Path) -> list[Path]:
    found = [each for each in path.parent.glob(f"{path.name}.*") if each.name.rpartition(".")[2].isdigit()]
    return sorted(found, key=lambda each: -int(each.name.rpartition(".")[2]))


def _nginx(app: str) -> list[_Source]:
    kinds = [kind for kind in ("access", "error") if (NGINX / f"{app}.{kind}.log").exists()]
    if not kinds:
        raise Failed(f"nginx keeps no log of {app}", todo="nothing was asked of it yet, or it has nginx = false")
    return [_Source(kind, (NGINX / f"{app}.{kind}.log",)) for kind in kinds]


def _programs(app: str, process: str, slot: str) -> list[_Source]:
    order = ("b", "a") if slot == "a" else ("a", "b")
    if process in ("", "web"):
        return [_Source("", tuple(layout.log(f"{app}-{each}") for each in order))]
    known = [name.partition(".")[2] for name in programs.configured(app, slot)]
    names = [name for name in known if process in (name, name.rpartition("-")[0])]
    if not names:
        have = ["web", *dict.fromkeys(name.rpartition("-")[0] for name in known), *_schedules(app)]
        raise Failed(f"{app} has no process and no schedule {process}", todo=f"it has: {', '.join(have)}")
    return [
        _Source(name if len(names) > 1 else "", tuple(layout.log(f"{app}-{each}.{name}") for each in order))
        for name in names
    ]


def _schedules(app: str) -> list[str]:
    return [each["name"] for each in schedule.read(app)]


# -- what was said -----------------------------------------------------------------------------------------------------


def _last(files: Sequence[Path], lines: int, since: float) -> list[str]:
    if since:
        found: list[str] = []
        for file in files:
            with contextlib.suppress(OSError):
                if file.stat().st_mtime >= since:
                    found += _since(file, since)
        return found
    found = []
    for file in reversed(files):
        if len(found) < lines:
            with contextlib.suppress(OSError):
                found = _tail(file, lines - len(found)) + found
    return found


def _since(file: Path, since: float) -> Iterator[str]:
    """The lines from the first one on that was written then; what says no time goes with the line before it."""
    begun = False
    for line in file.read_bytes().splitlines():
        text = line.decode("utf-8", "replace")
        if not begun:
            at = moment(text)
            begun = at is not None and at >= since
        if begun:
            yield text


def _tail(file: Path, lines: int) -> list[str]:
    """The last lines of a file that may be large: read from its end."""
    with file.open("rb") as open_file:
        at = open_file.seek(0, os.SEEK_END)
        data = b""
        while at and data.count(b"\n") <= lines:
            begin = max(0, at - _BLOCK)
            open_file.seek(begin)
            data = open_file.read(at - begin) + data
            at = begin
    found = data.split(b"\n")
    if not found[-1]:
        found.pop()
    return [each.decode("utf-8", "replace") for each in found[-lines:]] if lines else []


def moment(line: str) -> float | None:
    """When a line was written, in epoch seconds; None when it does not say."""
    found = _TIME.search(line[:200])
    if found is None:
        return None
    day, month = found["day"] or found["day2"], found["month"]
    if found["name"]:
        if found["name"] not in _MONTHS:
            return None
        month = f"{_MONTHS.index(found['name']) + 1:02}"
    zone = (found["zone"] or found["zone2"] or "").replace(":", "").replace("Z", "+0000")
    text = f"{found['year'] or found['year2']}-{month}-{day} {found['time'] or found['time2']}"
    try:
        if zone:
            return datetime.strptime(f"{text} {zone}", "%Y-%m-%d %H:%M:%S %z").astimezone(timezone.utc).timestamp()
        return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").timestamp()
    except (ValueError, OverflowError):
        return None


# -- what follows ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class _Followed:
    """One log from now on: a file that grows, is put aside for a new one, or comes to be."""

    name: str
    path: Path
    file: IO[bytes] | None = field(init=False, default=None)
    rest: bytes = b""

    def __post_init__(self) -> None:
        with contextlib.suppress(OSError):
            self.file = self.path.open("rb")
            self.file.seek(0, os.SEEK_END)

    def fresh(self) -> Iterator[str]:
        """The lines that have come since the last look."""
        for _ in range(2):
            if self.file is not None:
                yield from self._read()
            if not self._renewed():
                return

    def _read(self) -> Iterator[str]:
        assert self.file is not None
        if os.fstat(self.file.fileno()).st_size < self.file.tell():
            self.file.seek(0)  # emptied in place
        while data := self.file.read(_BLOCK):
            *lines, self.rest = (self.rest + data).split(b"\n")
            if len(self.rest) > _LONGEST:
                lines, self.rest = [*lines, self.rest], b""
            yield from (line.decode("utf-8", "replace") for line in lines)

    def _renewed(self) -> bool:
        """Whether another file is there now by this name: it is read from its beginning."""
        try:
            now = self.path.stat()
            if self.file is not None:
                before = os.fstat(self.file.fileno())
                if (before.st_dev, before.st_ino) == (now.st_dev, now.st_ino):
                    return False
                self.file.close()
            self.file = self.path.open("rb")
        except OSError:
            return False
        return True


def _follow(logs: Sequence[_Followed], tell: Tell) -> None:
    """Until nobody listens any more."""
    while wire.listening():
        for log in logs:
            for line in log.fresh():
                tell(log.name, line)
        time.sleep(_PAUSE)


def _journal(unit: str, lines: int, follow: bool, since: float, tell: Callable[[str], None]) -> None:
    asked = ["--since", f"@{int(since)}"] if since else ["--lines", str(lines)]
    command = ["journalctl", "--quiet", "--no-pager", "--output", "short-iso", "--no-hostname", "--unit", unit, *asked]
    child = subprocess.Popen(
        [*command, *(["--follow"] if follow else [])], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    rest = b""
    try:
        while wire.listening():
            if not select.select([child.stdout], [], [], _PAUSE)[0]:
                continue
            data = os.read(child.stdout.fileno(), _BLOCK)
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                tell(line.decode("utf-8", "replace"))
            if not data:
                break
    finally:
        child.kill()
        child.wait()
