"""The four cases, for any tools and numbers of apps, near and far: every run becomes a line of results.jsonl."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import far
from job import Job
from measure import calm, host, measured
from tools import TOOLS, Tool

TRIP = 0.05  # seconds there and back
CASES = ("first", "nothing", "change", "redeploy")


@dataclass(frozen=True)
class Wish:
    """What is to be measured: for how many apps, how often each tool's runs are repeated, from how far."""

    apps: int
    tools: Sequence[str]
    cases: Sequence[str]
    firsts: int
    runs: int
    far: bool = False


class Bench:
    """Measures, and hands each figure to `keep`."""

    def __init__(self, folder: Path, keep: Callable[[dict[str, object]], None], prefix: str, patience: float) -> None:
        self._folder, self._keep, self._prefix, self._patience = folder, keep, prefix, patience
        self._number = 0

    def measure(self, wish: Wish) -> None:
        """First deploys, each on a bare host, then the other cases; the tools take turns."""
        firsts = wish.firsts if "first" in wish.cases else 1
        for number in range(firsts - 1):
            for name in wish.tools:
                with self._bare(name, wish) as tool:
                    self._run(tool, "first", wish, number)
        with contextlib.ExitStack() as ends:
            standing = [ends.enter_context(self._deployed(name, wish, firsts - 1)) for name in wish.tools]
            for case in wish.cases:
                for number in range(wish.runs if case != "first" else 0):
                    for tool in standing:
                        self._run(tool, case, wish, number)

    @contextlib.contextmanager
    def _deployed(self, name: str, wish: Wish, number: int) -> Iterator[Tool]:
        """A host with the job done by a tool, measured if that is asked for."""
        with self._bare(name, wish) as tool:
            self._run(tool, "first", wish, number, kept="first" in wish.cases)
            if tool.learns:
                self._settle(tool)
            yield tool

    @contextlib.contextmanager
    def _bare(self, name: str, wish: Wish) -> Iterator[Tool]:
        self._number += 1
        folder = self._folder / f"{self._number}-{name}"
        with host(f"{self._prefix}-{name[:6]}-{wish.apps}{'f' * wish.far}") as box:
            tool = TOOLS[name](folder, Job(folder / "project", wish.apps), box)
            if not wish.far:
                yield tool
                return
            with far.away(box.address, 22, TRIP) as port:
                tool.aim("127.0.0.1", port)
                yield tool

    def _settle(self, tool: Tool) -> None:
        """The second run: whatever a tool learns of a host then, it has learnt."""
        run = measured(tool.box, tool.command(), tool.job.folder, tool.environment())
        if run.status or not tool.idle(run.output):
            raise RuntimeError(f"{tool.name}: the second run had something to do, or failed:\n{run.output[-6000:]}")

    def _run(self, tool: Tool, case: str, wish: Wish, number: int, *, kept: bool = True) -> None:
        """One run of a case, proved by HTTP."""
        app = tool.job.apps[-1]
        if case == "change":
            tool.job.change(app)
        elif case == "redeploy":
            tool.job.edit(app)
        tool.tell()
        tool.job.commit()
        share, load = calm(self._patience), os.getloadavg()[0]
        run = measured(tool.box, tool.command(), tool.job.folder, tool.environment())
        where = f"{case}, {wish.apps} app{'s' * (wish.apps > 1)}{', far' * wish.far}, {tool.name}"
        if run.status or (case == "nothing") != tool.idle(run.output):
            raise RuntimeError(f"{where}: status {run.status}\n{run.output[-6000:]}")
        tool.job.check(tool.box.address)
        say(f"{where}: {run.wall:.2f} s, {run.cpu:.2f} s of processors, {run.execs} execs ({number + 1})")
        if kept:
            self._keep(
                {
                    "kind": "case",
                    "case": case,
                    "tool": tool.name,
                    "apps": wish.apps,
                    "far": wish.far,
                    "wall": round(run.wall, 4),
                    "cpu": round(run.cpu, 4),
                    "connections": run.connections,
                    "execs": run.execs,
                    "sent": run.sent,
                    "received": run.received,
                    "share": round(share, 3),
                    "load": round(load, 2),
                }
            )


def say(text: str) -> None:
    """Progress."""
    print(f"[{datetime.now():%H:%M:%S}] {text}", flush=True)
