"""All that a person sees. The only module that knows rich, and it imports it only when there is something to show.

On a terminal: what is going on, how far, for how long. Otherwise (a pipe, CI): plain lines, one each, no colours.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from deploykit.agent.resource import Note
from deploykit.errors import DeploykitError
from deploykit.model.events import clean, one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from deploykit.model.events import Event

_SIGNS = {"create": ("+", "green"), "change": ("~", "yellow"), "remove": ("-", "red"), "run": ("*", "cyan")}
#: Lines of detail after which the first line of an error may be out of sight.
_SCREENFUL = 15
#: Kinds of events that are an answer for others to show, or say nothing to a person.
_SILENT = frozenset({"facts", "left", "secrets", "status", "tree"})


class Screen:
    """Shows events of one or more hosts. `several`: whether each line must say its host."""

    def __init__(self, *, several: bool = False, verbose: bool = False, quiet: bool = False) -> None:
        self._several = several
        self._verbose = verbose
        self._quiet = quiet
        self._lock = threading.RLock()
        self._progress: Progress | None = None
        self._rows: dict[str, TaskID] = {}
        self._plans: dict[str, Event] = {}
        self._counted: set[str] = set()
        self._began = time.monotonic()
        self._terminal = sys.stdout.isatty() and not quiet
        self._console: Console | None = None

    # -- plain words ---------------------------------------------------------------------------------------------

    def line(self, text: str, style: str = "", host: str = "") -> None:
        """One line to standard output."""
        if self._quiet:
            return
        prefix = f"{host}: " if host and self._several else ""
        text = one_line(text)
        with self._lock:
            if not self._terminal or not (style or self._progress):
                print(prefix + text, flush=True)
            else:
                from rich.text import Text

                self._rich().print(Text(prefix + text, style=style), soft_wrap=True)

    def failure(self, error: DeploykitError) -> None:
        """An error of ours, to standard error."""
        self.stop()
        first, *rest = error.lines()
        self._complain(f"error: {first}", rest)

    def _complain(self, first: str, rest: Sequence[str]) -> None:
        with self._lock:
            if sys.stderr.isatty():
                from rich.console import Console
                from rich.text import Text

                console = Console(stderr=True)
                console.print(Text(one_line(first), style="bold red"), soft_wrap=True)
                for line in rest:
                    console.print(Text(one_line(line)), soft_wrap=True)
            else:
                print("\n".join(map(one_line, (first, *rest))), file=sys.stderr, flush=True)

    def _rich(self) -> Console:
        if self._progress is not None:
            return self._progress.console
        if self._console is None:
            from rich.console import Console

            self._console = Console(highlight=False)
        return self._console

    # -- questions -----------------------------------------------------------------------------------------------

    def host_key(self, host: str, kind: str, fingerprint: str) -> bool:
        """Asks whether an unknown host key is right; where nobody can be asked, it is not."""
        if not sys.stdin.isatty():
            return False
        with self._lock:
            print(f"The host key of {host} is not known yet:\n  {kind} {fingerprint}")
            return input("Is it the one that your provider shows? [yes/no] ").strip().lower() == "yes"

    def password(self, question: str) -> str:
        """Asks for a password without an echo."""
        import getpass

        if not sys.stdin.isatty():
            todo = "run it in a terminal, or allow sudo without a password"
            raise DeploykitError(f"a password is needed ({question})", "no terminal", todo)
        with self._lock:
            return getpass.getpass(f"{question}: ")

    def confirm(self, question: str, word: str) -> bool:
        """Asks for a word to be typed, before what cannot be undone."""
        if not sys.stdin.isatty():
            return False
        return input(f"{question}\nType {word} to go on: ").strip() == word

    # -- progress ------------------------------------------------------------------------------------------------

    def event(self, host: str, event: Event) -> None:
        """One event of one host."""
        with self._lock:
            if event["event"] not in _SILENT:
                getattr(self, f"_on_{event['event']}")(host, event)

    def stop(self) -> None:
        """Ends the moving part of the display."""
        with self._lock:
            if self._progress is not None:
                self._progress.stop()
                self._progress = None
                self._rows.clear()

    def _move(self, row: str, text: str, *, total: int | None = None, advance: int = 0) -> None:
        """Shows what is going on in a row of the moving display."""
        if not self._terminal:
            return
        if self._progress is None:
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
            from rich.progress import TimeElapsedColumn as Elapsed
            from rich.table import Column

            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.fields[row]}", table_column=Column(width=14), markup=False),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[count]}", justify="right", table_column=Column(width=7), markup=False),
                Elapsed(),
                TextColumn("{task.description}", table_column=Column(no_wrap=True, ratio=1), markup=False),
                console=self._rich(),
                transient=True,
                expand=True,
            )
            self._progress.start()
        if row not in self._rows:
            self._rows[row] = self._progress.add_task(one_line(text), total=total, row=one_line(row), count="")
        known = next(each for each in self._progress.tasks if each.id == self._rows[row])
        count = f"{known.completed + advance:.0f}/{known.total:.0f}" if known.total else ""
        self._progress.update(known.id, description=one_line(text), advance=advance, count=count)

    def _end_row(self, row: str) -> None:
        if self._progress is not None and row in self._rows:
            self._progress.remove_task(self._rows.pop(row))

    def _on_ended(self, host: str, event: Event) -> None:
        at = moment(event["at"]) if event["at"] else "earlier"
        how = {True: "ended well", False: "failed", None: "was cut short; this run finishes it"}[event["ok"]]
        self.line(f"the run of {event['who']} ({at}), whose connection was lost, {how}", "yellow", host)
        for what in event["errors"]:
            self.line(f"  {what}", "", host)

    def _on_attached(self, host: str, event: Event) -> None:
        self.line(f"{event['who']} deploys the same since {event['age']:.0f} s: this is its progress", "cyan", host)

    def _on_plan(self, host: str, event: Event) -> None:
        self._plans[host] = event

    def _on_started(self, host: str, event: Event) -> None:
        self._count(host)

    def _count(self, host: str) -> None:
        """How much there is to do, said once: before the sources are sent, or at the start."""
        changes = self._plans.get(host, {}).get("changes", [])
        if changes and host not in self._counted:
            self._counted.add(host)
            counts = [
                f"{sum(each['verb'] in verbs for each in changes)} to {word}"
                for word, verbs in (
                    ("make", ("create", "later")),
                    ("change", ("change", "run")),
                    ("remove", ("remove",)),
                )
                if any(each["verb"] in verbs for each in changes)
            ]
            self.line("plan: " + ", ".join(counts), "bold", host)

    def _on_want(self, host: str, event: Event) -> None:
        self._count(host)
        if event["files"]:
            mebibytes = event["bytes"] / 2**20
            size = f"{mebibytes:.1f} MiB" if mebibytes >= 1 else f"{mebibytes * 1024:.0f} KiB"
            self.line(f"{event['app']}: sending {number(len(event['files']), 'file')}, {size}", "", host)

    def _on_changing(self, host: str, event: Event) -> None:
        keys = event["key"].split(", ")
        total = len([e for e in self._plans.get(host, {}).get("changes", []) if not e["key"].startswith("app ")])
        kind = keys[0].rpartition(" ")[0]
        text = keys[0] if len(keys) == 1 else f"{len(keys)} {kind}s: " + " ".join(k.rpartition(" ")[2] for k in keys)
        sign, style = _SIGNS.get(event["verb"], ("+", "green"))
        self._move(host, text, total=total or None, advance=len(keys))
        if self._verbose or not self._terminal or len(keys) > 1:
            self.line(f"{sign} {text}", style, host)

    def _on_action(self, host: str, event: Event) -> None:
        self._move(host, event["name"])
        self.line(f"* {event['name']}", "cyan", host)

    def _on_progress(self, host: str, event: Event) -> None:
        for text in clean(event["line"]).splitlines():
            if self._verbose:
                self.line(f"  {text}", "dim", host)
            self._move(host, text)

    def _on_stage(self, host: str, event: Event) -> None:
        self._end_row(host)
        self._move(event["app"], event["name"])
        if not self._terminal or self._verbose:
            self.line(f"{event['app']}: {event['name']}", "", host)

    def _on_output(self, host: str, event: Event) -> None:
        for text in clean(event["line"]).splitlines() or [""]:
            if self._verbose or text.startswith("dumped to "):
                self.line(f"  {event['app']} | {text}", "dim", host)
            elif self._terminal and text.strip():
                self._move(event["app"], text.strip()[:160])

    def _on_deployed(self, host: str, event: Event) -> None:
        self._end_row(event["app"])
        took = f" ({event['seconds']:.1f} s)" if "seconds" in event else ""
        self.line(f"{event['app']}: release {event['release']} is live{took}", "green", host)

    def _on_restarted(self, host: str, event: Event) -> None:
        self._end_row(event["app"])
        what = f"{', '.join(event['processes'])} runs anew" if event["processes"] else "runs anew, no request was lost"
        self.line(f"{event['app']}: {what}", "green", host)

    def _on_log(self, host: str, event: Event) -> None:
        """A line of a log; as it is where no terminal could be steered by it."""
        place = f"{one_line(event['from'])} | " if event["from"] else ""
        prefix = f"{host}: " if self._several else ""
        print(f"{prefix}{place}{one_line(event['line']) if self._terminal else event['line']}", flush=True)

    def _on_error(self, host: str, event: Event) -> None:
        for row in (host, event.get("app", "")):
            self._end_row(row)
        rest = [f"  {line}" for line in clean(event["detail"]).splitlines()]
        first = f"error: host {host}: {event['what']}"
        if len(rest) > _SCREENFUL:
            rest += [first]  # else what happened has scrolled away
        rest += [f"  -> {line}" for line in clean(event["todo"]).splitlines()]
        if self._progress is not None:
            self._progress.console.print()
        self._complain(first, rest)

    def _on_end(self, host: str, event: Event) -> None:
        self._end_row(host)

    # -- results -------------------------------------------------------------------------------------------------

    def notes(self, host: str, notes: Sequence[Note], *, warnings: bool = False) -> None:
        """What recipes have to say; only their warnings, if so asked."""
        for note in notes:
            if note.warning:
                self.line(f"warning: {note.text}", "yellow", host)
            elif not warnings:
                self.line(note.text, "dim", host)

    def plan(self, host: str, plan: Event) -> None:
        """A plan with its diffs and consequences."""
        changes = plan.get("changes", [])
        if not changes:
            self.line("nothing to do", "green", host)
        for change in changes:
            self._change(host, change)
        if plan.get("kept"):
            kept = ", ".join(plan["kept"])
            self.line(f"stays of apps that left, for a plan removes no data: {kept}", "dim", host)
        consequences = list(dict.fromkeys(name for change in changes for name in change["actions"]))
        if consequences:
            self.line("then: " + ", ".join(consequences), "cyan", host)
        if changes:
            them = "makes it" if len(changes) == 1 else "makes them"
            self.line(f"{number(len(changes), 'change')}; `fab deploy` {them}", "bold", host)

    def _change(self, host: str, change: dict[str, Any]) -> None:
        sign, style = _SIGNS.get(change["verb"], ("?", "magenta"))
        later = "  (known once what it needs is installed)" if change["verb"] == "later" else ""
        if change["verb"] == "later":
            sign, style = _SIGNS["create"]
        self.line(f"{sign} {change['key']}{later}", style, host)
        for each in change["differences"]:
            if "diff" in each:
                if change["verb"] == "create" and not self._verbose:
                    continue
                self.line(f"    {each['name']}:", "", host)
                for line in clean(each["diff"]).splitlines():
                    colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "dim")
                    self.line(f"      {line}", colour, host)
            elif change["verb"] != "create" or change["key"].startswith("app "):
                old = "nothing" if each["old"] in (None, "") else each["old"]
                new = "nothing" if each["new"] in (None, "") else each["new"]
                self.line(f"    {each['name']}: {old} -> {new}", "", host)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table; plain columns where there is no terminal."""
        self.stop()
        if self._quiet:
            return
        rows = [[one_line(cell) for cell in row] for row in rows]
        if self._terminal:
            from rich import box
            from rich.table import Table
            from rich.text import Text

            table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
            for name in columns:
                table.add_column(name)
            for row in rows:
                table.add_row(*map(Text, row))
            self._rich().print(table)
            return
        if title:
            print(title)
        lines = [list(columns), *map(list, rows)]
        widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
        for line in lines:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        sys.stdout.flush()


def number(count: int, word: str) -> str:
    """ "1 change", "2 changes"."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def moment(seconds: float) -> str:
    """A time in the person's own zone."""
    return datetime.fromtimestamp(seconds, tz=timezone.utc).astimezone().strftime("%Y-%m-%d %H:%M")


def span(seconds: float) -> str:
    """A duration at a glance: "42 s", "5 min", "3 h", "12 d"."""
    for limit, size, unit in ((90, 1, "s"), (5400, 60, "min"), (129600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
