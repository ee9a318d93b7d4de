"""Runs that outlive their connection: a run writes its events to a file; whoever is connected reads along.

The process that does the work has a session of its own and never writes to the connection, so a dropped or stalled
connection cannot hold it up. A later `fab deploy` reads the same file from its beginning.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploykit.agent import paths, wire
from deploykit.agent.lock import Lock

KEEP = 20  # run files kept


class Run:
    """One run's events, in /var/lib/deploykit/runs/<id>.jsonl (root only)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = paths.RUNS / f"{name}.jsonl"

    def create(self) -> None:
        """Makes the file, and drops old ones."""
        paths.RUNS.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in sorted(paths.RUNS.glob("*.jsonl"))[: -KEEP + 1]:
            old.unlink(missing_ok=True)
            old.with_suffix(".seen").unlink(missing_ok=True)
        os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))

    def write(self, event: wire.Event) -> None:
        """Adds an event. Lines are short and appended in one write, so that a reader sees whole ones."""
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(handle, json.dumps(event, separators=(",", ":")).encode() + b"\n")
        finally:
            os.close(handle)

    def relay(self, alive: Callable[[], bool]) -> wire.Event | None:
        """Sends the events as they come, until the one that ends the run, and returns that; None: it was cut short."""
        with open(self.path, "rb") as file:
            rest = b""
            while True:
                living = alive()
                data = file.read()
                rest += data
                *lines, rest = rest.split(b"\n")
                for line in lines:
                    event: wire.Event = json.loads(line)
                    wire.send(event)
                    if event["event"] == "end":
                        self.path.with_suffix(".seen").touch(mode=0o600)
                        return event
                if not data:
                    if not living:
                        return None
                    if not wire.listening():
                        raise EOFError("nobody reads along any more; the run goes on")
                    time.sleep(0.01)


def detach(run: Run, work: Callable[[], None], lock: Lock) -> int:
    """Does `work` in a process of its own that nothing of this connection can end; returns its pid.

    It inherits the host's lock, and this process lets go of it: the lock is free exactly when the work has ended.
    """
    run.create()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        lock.close()
        return pid
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        quiet = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(quiet, number)
        work()
        status = 0
    except BaseException as error:  # noqa: BLE001
        # The last resort: whatever went wrong must reach the person; frames carry values, so only where, never what.
        import traceback

        where = traceback.extract_tb(error.__traceback__)[-1]
        run.write(
            {
                "event": "error",
                "what": f"deploykit itself failed: {type(error).__name__}",
                "detail": f"{Path(where.filename).name}:{where.lineno} in {where.name}",
                "todo": "deploy again; if it happens again, report it with this message",
            }
        )
        run.write({"event": "end", "ok": False})
    finally:
        os._exit(status)


def unseen() -> list[dict[str, Any]]:
    """Runs whose end nobody was told: each with `run`, `ok` (None: cut short), `who`, `at`. They count as told now."""
    found = []
    for path in sorted(paths.RUNS.glob("*.jsonl")):
        seen = path.with_suffix(".seen")
        if seen.exists():
            continue
        seen.touch(mode=0o600)
        events = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
        ends = [each for each in events if each["event"] == "end"]
        begin: dict[str, Any] = next((each for each in events if each["event"] == "started"), {})
        found.append(
            {
                "run": path.stem,
                "ok": ends[0]["ok"] if ends else None,
                "who": begin.get("who", ""),
                "at": begin.get("at", 0),
                "errors": [each["what"] for each in events if each["event"] == "error"],
            }
        )
    return found
