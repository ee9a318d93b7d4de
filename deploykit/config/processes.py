"""What runs: web servers, workers, schedules, the steps of a build, and the checks that a release must pass."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from deploykit.agent.values import STEPS, Build, Check, Process, Schedule, Web
from deploykit.config import models, references
from deploykit.config.check import Reader, shown
from deploykit.config.toml import Path as Way

APPLICATION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
URL_PATH = re.compile(r"/[A-Za-z0-9._~/@:+-]*")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")
_NAMES = "lower-case letters, digits, _ and -, beginning with a letter"

#: cron's own names for the days; systemd writes them alike, in English and from Monday on.
_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WORDS = ("minutely", "hourly", "daily", "weekly", "monthly", "quarterly", "semiannually", "yearly", "annually")
#: A calendar expression of systemd.time(7), as far as its letters: the host's systemd has the last word.
_CALENDAR = re.compile(r"[A-Za-z0-9*/.,:~ +_-]{1,100}")


def application_mistake(text: str) -> tuple[str, str]:
    """("", "") for "config.wsgi:application"; else what is wrong, and what was probably meant."""
    if APPLICATION.fullmatch(text):
        return "", ""
    head, _, tail = text.removesuffix(".py").replace("/", ".").rpartition(".")
    guess = f"{head}:{tail}" if tail in ("application", "app") else f"{head}.{tail}:application".lstrip(".")
    return f"{shown(text)} is no application", guess if APPLICATION.fullmatch(guess) else ""


class Rules:
    """The checks of one app's table. `known` are the references that its commands may use."""

    def __init__(self, reader: Reader, table: models.AppTable, way: Way, known: references.Known) -> None:
        self.reader, self.table, self.way, self.known = reader, table, way, known

    def add(self, way: Way, what: str, allowed: str = "", suggestion: str = "") -> None:
        """Notes a mistake below this app's table."""
        self.reader.add((*self.way, *way), what, allowed, suggestion)

    def faulty(self, *way: str | int) -> bool:
        """Whether a value below this app's table is wrong already."""
        return self.reader.faulty((*self.way, *way))

    def name(self, kind: str, name: str) -> None:
        """A process's, schedule's or service's name."""
        if name == "web":
            self.add((kind, name), "web is the name of the app's own web server", "another name")
        elif not _NAME.fullmatch(name):
            guess = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-")
            self.add((kind, name), f"{shown(name)} is no name", _NAMES, guess if _NAME.fullmatch(guess) else "")

    def command(self, text: str, *way: str | int) -> None:
        """A command: something, on as many lines as it likes, with references that are there."""
        if not text.strip() or "\0" in text:
            self.add(way, "this is no command", 'such as "python manage.py clearsessions"')
            return
        references.check_command(text, self.known, self._at(way))

    def _at(self, way: Way) -> Callable[[str, str, str], None]:
        return lambda what, allowed, suggestion: self.add(way, what, allowed, suggestion)

    def folder(self, value: str | None, *way: str | int) -> str | None:
        """A working folder inside the source: None is that of manage.py, "" the source's top."""
        if value is None:
            return None
        if outside(value):
            self.add(way, f"{shown(value)} is not inside the source")
        return value.strip("/").removeprefix("./").removeprefix(".")

    # -- processes -------------------------------------------------------------------------------------------------

    def processes(self) -> tuple[Process, ...]:
        """[apps.NAME.processes]."""
        return tuple(self._process(name, table) for name, table in self.table.processes.items())

    def _process(self, name: str, table: models.ProcessTable) -> Process:
        way = ("processes", name)
        self.name("processes", name)
        given = [key for key in ("command", "wsgi", "asgi") if getattr(table, key)]
        if len(given) != 1 and not self.faulty(*way):
            what = f"it has both {given[0]} and {given[1]}" if given else "what it runs is missing"
            self.add((*way, given[1] if given else "command"), what, "one of command, wsgi and asgi")
        if table.command:
            self.command(table.command, *way, "command")
        web = None
        if table.wsgi or table.asgi:
            web = self._server(table, table.wsgi, table.asgi, way)
            if not table.paths:
                self.add((*way, "paths"), "a web server needs the paths that lead to it", 'a list such as ["/ws/"]')
            if table.count > 1:
                self.add((*way, "count"), "a web server is one process with `workers`", "workers instead of count")
            if table.once:
                self.add((*way, "once"), "a web server is switched without a gap: it cannot run just once")
        for index, path in enumerate(table.paths):
            if not URL_PATH.fullmatch(path) or path == "/":
                self.add((*way, "paths", index), f"{shown(path)} is no path", 'a path such as "/ws/"')
        if table.paths and table.command and len(given) == 1:
            self.add((*way, "paths"), "nginx can send requests to a web server only: one with wsgi or asgi")
        if table.paths and self.table.nginx is False:
            self.add((*way, "paths"), "nginx = false: nobody is there to send requests to it")
        if table.once and table.count > 1:
            self.add((*way, "count"), "it shall run exactly once", "1")
        folder = self.folder(table.folder, *way, "folder")
        return Process(
            name, table.command, table.count, folder, table.once, table.stop_signal, table.stop_timeout, table.steady,
            table.paths, web,
        )  # fmt: skip

    def _server(
        self, table: models.WebTable | models.ProcessTable, wsgi: str | None, asgi: str | None, way: Way, body: int = 20
    ) -> Web:
        for key, text in (("wsgi", wsgi), ("asgi", asgi)):
            what, guess = application_mistake(text) if text else ("", "")
            if what and way:  # those of the app itself are checked with it
                self.add((*way, key), what, "a module and a name", guess and f'"{guess}"')
        place = way or ("web",)
        if table.server != "gunicorn" and self.table.nginx is False and not way:
            self.add((*place, "server"), "nginx = false: only gunicorn can listen on a port and a socket", '"gunicorn"')
        elif table.server != "gunicorn" and wsgi:
            self.add((*place, "server"), f"{table.server} serves ASGI only", '"gunicorn", or asgi instead of wsgi')
        for index, word in enumerate(table.args):
            if not word.strip() or not word.isprintable():
                self.add((*place, "args", index), f"{shown(word)} is no argument")
        interface = "asgi" if asgi else "wsgi"
        return Web(
            interface, asgi or wsgi or "", table.workers, table.threads, table.timeout, body, table.server, table.args
        )

    def web(self) -> Web:
        """[apps.NAME.web], with the app's own wsgi or asgi."""
        body = self.size(self.table.web.max_body, "web", "max_body")
        made = self._server(self.table.web, self.table.wsgi, self.table.asgi, (), body)
        return replace(made, start=self.table.web.start_timeout)

    def size(self, size: int | str, *way: str) -> int:
        """A size in MiB, rounded up."""
        if isinstance(size, int):
            return size
        found = re.fullmatch(r"(\d{1,7})\s*([kmg])(i?b)?", size.strip().lower())
        bytes_ = int(found[1]) * {"k": 2**10, "m": 2**20, "g": 2**30}[found[2]] if found else 0
        if not 0 < bytes_ <= 2**40:
            plain = f'"{size}m"' if size.isdigit() and int(size) else ""
            self.add(way, f"{shown(size)} is no size", 'MiB as a number, or text such as "20m" or "1g"', plain)
        return max(1, -(-bytes_ // 2**20))

    # -- schedule --------------------------------------------------------------------------------------------------

    def schedule(self) -> tuple[Schedule, ...]:
        """[apps.NAME.schedule]."""
        found = []
        for name, table in self.table.schedule.items():
            way = ("schedule", name)
            self.name("schedule", name)
            if name in self.table.processes:
                self.add(way, f"a process is named {name}, too", "a name of its own")
            if not self.faulty(*way, "command"):
                self.command(table.command, *way, "command")
            at = calendar(table.at)
            if not at and not self.faulty(*way, "at"):
                allowed = models.ScheduleTable.__dataclass_fields__["at"].metadata["allowed"]
                self.add((*way, "at"), f"{shown(table.at)} is no time", allowed)
            folder = self.folder(table.folder, *way, "folder")
            found.append(Schedule(name, table.command, at, table.catch_up, table.timeout, folder))
        return tuple(found)

    # -- build -----------------------------------------------------------------------------------------------------

    def build(self) -> Build:
        """The steps of a build, and what persists."""
        hooks = []
        for step in STEPS:
            for index, command in enumerate(listed(getattr(self.table.hooks, step))):
                self.command(command, "hooks", step, index)
                hooks.append((step, command))
        for index, path in enumerate(self.table.persist):
            if outside(path) or path.strip("./") == "":
                self.add(("persist", index), f"{shown(path)} is not inside the source")
        clean = [posixpath.normpath(path) + ("/" if path.endswith("/") else "") for path in self.table.persist]
        for index, path in enumerate(clean):
            bare = path.rstrip("/")
            outer = next((each for each in clean if bare.startswith(each.rstrip("/") + "/")), "") or next(
                (each for each in clean[:index] if each.rstrip("/") == bare), ""
            )
            if outer:
                self.add(("persist", index), f"{shown(path)} is within {shown(outer)} already")
        return Build(
            tuple(hooks), self._arguments("collectstatic"), self._arguments("migrate"), tuple(dict.fromkeys(clean))
        )

    def _arguments(self, key: str) -> tuple[str, ...] | None:
        value: bool | str | tuple[str, ...] = getattr(self.table, key)
        if isinstance(value, bool):
            return () if value else None
        words = tuple(value.split()) if isinstance(value, str) else value
        for word in words:
            if not word.strip() or "\0" in word:
                self.add((key,), f"{shown(word)} is no argument")
        return words

    # -- checks ----------------------------------------------------------------------------------------------------

    def checks(self) -> tuple[Check, ...]:
        """[[apps.NAME.checks]]."""
        tables = [each for each in self.table.checks if isinstance(each, models.CheckTable)]
        return tuple(self._check(table, ("checks", index)) for index, table in enumerate(tables))

    def _check(self, table: models.CheckTable, way: Way) -> Check:
        if table.command:
            self.command(table.command, *way, "command")
        if bool(table.path) == bool(table.command):
            self.add((*way, "path"), "a check has either a path or a command", 'a path such as "/api/"')
        elif table.path and not re.fullmatch(r"/[\x21-\x7e]*", table.path):
            self.add((*way, "path"), f"{shown(table.path)} is no path", 'a path such as "/api/"')
        asked = [
            key for key in ("host", "scheme", "status", "text", "json", "asset", "websocket") if getattr(table, key)
        ]
        if table.command and asked:
            self.add((*way, asked[0]), "a command has no answer to look at: it ends with 0, or the check fails")
        if table.websocket and any(key in asked for key in ("status", "text", "json", "asset")):
            self.add((*way, "websocket"), "a handshake has no body and one status: 101")
        if table.host and not re.fullmatch(r"[A-Za-z0-9.:-]{1,253}", table.host):
            self.add((*way, "host"), f"{shown(table.host)} is no domain")
        statuses = (table.status,) if isinstance(table.status, int) else table.status
        for status in statuses:
            if not (isinstance(status, int) and 100 <= status <= 599):
                self.add((*way, "status"), f"{shown(status)} is no status", "a number from 100 to 599")
        values = tuple((name, json.dumps(value, ensure_ascii=False)) for name, value in table.json.items())
        return Check(
            table.path, table.host, table.scheme or "", statuses, table.text, values, table.asset, table.websocket,
            table.command, table.timeout,
        )  # fmt: skip


def listed(value: str | tuple[str, ...]) -> tuple[str, ...]:
    """A value that may be one or several."""
    return (value,) if isinstance(value, str) else value


def outside(text: str) -> bool:
    """Whether a path leaves the source, or is none."""
    parts = text.split("/")
    return not text or text.startswith(("/", "~", "-")) or ".." in parts or "\\" in text or not text.isprintable()


def calendar(text: str) -> str:
    """A time as systemd's OnCalendar= takes it, from its own words or five fields as in crontab(5); "" is none."""
    fields = text.split()
    if len(fields) == 5 and all(re.fullmatch(r"[0-9A-Za-z*,/-]+", each) for each in fields):
        return _from_cron(*fields)
    words: Any = text.strip().lower()
    if words in _WORDS or words.removeprefix("@") in _WORDS:
        return str(words.removeprefix("@"))
    found = _CALENDAR.fullmatch(text.strip()) and (":" in text or re.search(r"\d|\*", text))
    return text.strip() if found else ""


def _from_cron(minute: str, hour: str, day: str, month: str, weekday: str) -> str:
    parts = [
        _field(minute, 0, 59),
        _field(hour, 0, 23),
        _field(day, 1, 31),
        _field(month, 1, 12, _MONTHS),
    ]
    days = _weekdays(weekday)
    # cron runs when either the day of the month or the weekday fits; systemd when both do: so one must be "*".
    if not all(parts) or days is None or (days and parts[2] != "*"):
        return ""
    return f"{days} *-{parts[3]}-{parts[2]} {parts[1]}:{parts[0]}:00".strip()


def _field(text: str, low: int, high: int, names: tuple[str, ...] = ()) -> str:
    """One field: "*", "*/n", "a-b", "a-b/n", lists of them; "" when it is none."""
    found = []
    for part in text.lower().split(","):
        body, slash, step = part.partition("/")
        first, dash, last = body.partition("-")
        if slash and not (step.isdigit() and int(step)):
            return ""
        if body == "*":
            found.append(f"{low}/{step}" if slash else "*")
            continue
        numbers = [str(names.index(each)) if each in names[1:] else each for each in (first, *([last] if dash else []))]
        if not all(each.isdigit() and low <= int(each) <= high for each in numbers):
            return ""
        if dash and int(numbers[0]) > int(numbers[1]):
            return ""
        found.append("..".join(numbers) + (f"/{step}" if slash else ""))
    return ",".join(found)


def _weekdays(text: str) -> str | None:
    """The days of the week as systemd names them; "" is any, None is no such thing."""
    if text == "*":
        return ""
    names = tuple(day.lower() for day in _DAYS[:7])
    found = []
    for part in text.lower().split(","):
        ends = [str(names.index(each)) if each in names else each for each in part.split("-")]
        if len(ends) > 2 or not all(each.isdigit() and int(each) <= 7 for each in ends):
            return None
        if len(ends) == 2 and int(ends[0]) > int(ends[1]):
            return None
        found += [_DAYS[number] for number in range(int(ends[0]), int(ends[-1]) + 1)]
    return ",".join(dict.fromkeys(found))
