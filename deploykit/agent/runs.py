"""Runs that outlive their connection: a run writes its events to a file; whoever is connected reads along.

The process that does the work has a session of its own and never writes to the connection, so a dropped or stalled
connection cannot hold it up. A later `fab deploy` reads the same file from its beginning.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from deploykit.agent import lock, paths, wire
from deploykit.agent.engine import trouble
from deploykit.agent.lock import Lock
from deploykit.agent.resource import Failed

KEEP = 20  # run files kept

#: Does what a run is for, tells events, returns (number of changes, whether all went well).
Work = Callable[[Callable[[wire.Event], None]], tuple[int, bool]]


class Run:
    """One run's events, in /var/lib/deploykit/runs/<id>.jsonl (root only)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = paths.RUNS / f"{name}.jsonl"
        self._lock = -1

    def create(self) -> None:
        """Makes the file, and drops old ones. It is locked for as long as this process has it, or one that it forks."""
        paths.RUNS.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in sorted(paths.RUNS.glob("*.jsonl"))[: -KEEP + 1]:
            old.unlink(missing_ok=True)
            old.with_suffix(".seen").unlink(missing_ok=True)
        self._lock = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def leave(self) -> None:
        """Another process has it, and ours does not."""
        os.close(self._lock)

    def alive(self) -> bool:
        """Whether its process is at work. False also before it has begun."""
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(handle)
        return False

    def write(self, event: wire.Event) -> None:
        """Adds an event. Lines are short and appended in one write, so that a reader sees whole ones."""
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(handle, wire.line(event))
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
                    wire.write(line + b"\n")  # its secrets were taken out when it was written
                    event: wire.Event = json.loads(line)
                    if event["event"] == "end":
                        self.path.with_suffix(".seen").touch(mode=0o600)
                        return event
                if not data:
                    if not living:
                        return None
                    if not wire.listening():
                        raise wire.Gone("the controller is gone; the run goes on")
                    time.sleep(0.01)


def detach(run: Run, work: Callable[[], None], lock: Lock) -> int:
    """Does `work` in a process of its own that nothing of this connection can end; returns its pid.

    It inherits the host's lock, and this process lets go of it: the lock is free exactly when the work has ended.
    """
    run.create()
    pid = os.fork()
    if pid:
        run.leave()
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


def follow(request: wire.Event, holder: lock.Holder, held: Lock, work: Work, before: Sequence[wire.Event] = ()) -> None:
    """Works in a process of its own, whatever becomes of the connection; sends `before`, and reads along as it can.

    Nothing is sent before that process is there: a controller that does not read must not hold the host's lock.
    """
    run = Run(holder.run)

    def body() -> None:
        began = time.monotonic()
        held.write(dataclasses.replace(holder, pid=os.getpid()))
        run.write({"event": "started", "run": holder.run, "who": holder.who, "at": time.time()})
        changes: list[str] = []

        def tell(event: wire.Event) -> None:
            if event["event"] == "changing":
                changes.append(f"{event['verb']} {event['key']}")
            elif event["event"] == "deployed":
                changes.append(f"deploy {event['app']} {event['release']}")
            run.write(event)

        try:
            lock.settle()
            count, ok = work(tell)
        except Failed as failure:
            run.write(trouble(failure))
            count, ok = 0, False
        lock.settled()
        seconds = round(time.monotonic() - began, 2)
        note(request, count, ok, seconds, changes)
        run.write({"event": "end", "ok": ok, "changed": count, "seconds": seconds})

    pid = detach(run, body, held)
    ended = False

    def alive() -> bool:
        nonlocal ended
        if not ended:
            ended = os.waitpid(pid, os.WNOHANG)[0] == pid
        return not ended

    for event in before:
        wire.send(event)
    read_along(run, alive)


def read_along(run: Run, alive: Callable[[], bool]) -> None:
    """Sends a run's events to its end, also if that came from outside."""
    if run.relay(alive) is not None:
        return
    wire.send(
        {
            "event": "error",
            "what": "the run on the host was ended from outside before it was done",
            "detail": f"run {run.name}",
            "todo": "deploy again: it goes on where this one was stopped",
        }
    )
    wire.send({"event": "end", "ok": False})


def note(request: wire.Event, changed: int, ok: bool, seconds: float, changes: Sequence[str] = ()) -> None:
    """The host's journal: one line a run, for `fab status` and for people."""
    entry = {
        "at": round(time.time(), 1),
        "who": request["who"],
        "commit": request.get("commit", ""),
        "operation": request["operation"],
        "changed": changed,
        "changes": list(changes),
        "ok": ok,
        "seconds": seconds,
    }
    if changes:
        from deploykit.agent import masking

        entry["changes"] = masking.masked(entry["changes"])
    handle = os.open(paths.JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, json.dumps(entry, separators=(",", ":")).encode() + b"\n")
    finally:
        os.close(handle)


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
