"""One request, answered with events. Looking happens while connected; changing goes on without the connection.

Each operation loads what it alone needs: on a host with nothing to do, loading was most of what the agent did.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

from deploykit.agent import engine, facts, lock, meanwhile, paths, process, runs, wire
from deploykit.agent.engine import Manifest
from deploykit.agent.resource import Failed, Resource, Secret, decode


def main() -> None:
    """Answers the request on standard input. Exit status 0: it was answered, whatever the answer."""
    os.umask(0o022)
    meanwhile.load()
    try:
        request = wire.receive()
    except EOFError:
        return
    if request["operation"] not in _LOOKING:
        process.abandon()
    try:
        _OPERATIONS[request["operation"]](request)
    except Failed as failure:
        wire.send(engine.trouble(failure))
        wire.send({"event": "end", "ok": False})
    except lock.Held as held:
        _refuse(held.holder)
    except EOFError as gone:
        print(gone, file=sys.stderr)
    except OSError as error:
        wire.send(
            {
                "event": "error",
                "what": f"the host refuses: {error.strerror or error}",
                "detail": str(error.filename or ""),
                "todo": "free some disk space" if error.errno == 28 else "mend that on the host, then deploy again",
            }
        )
        wire.send({"event": "end", "ok": False})


def _refuse(holder: lock.Holder | None) -> None:
    who = f"{holder.who} has had it for {holder.age:.0f} s ({holder.operation})" if holder else "another run has it"
    wire.send(
        {
            "event": "error",
            "what": f"the host is locked: {who}",
            "detail": "",
            "todo": "wait until it has ended; the same `fab deploy` as that one shows how far it is",
        }
    )
    wire.send({"event": "end", "ok": False, "locked": True})


def _manifest(request: wire.Event) -> Manifest:
    only = request.get("only")
    resources: list[Resource] = [decode(each) for each in request["resources"]]
    return Manifest(
        tuple(resources),
        tuple(decode(each) for each in request["deployments"]),
        frozenset(only) if only is not None else None,
    )


def _same_facts(request: wire.Event) -> bool:
    """Whether the manifest was made for this host as it is; else says how it is, for a better one."""
    now = asdict(facts.read())
    if request["facts"] == now:
        return True
    wire.send({"event": "facts", "facts": now})
    return False


def _holder(request: wire.Event) -> lock.Holder:
    name = f"{time.time_ns() // 1000:x}-{os.getpid()}"
    return lock.Holder(request["who"], name, request["digest"], request["operation"], time.time(), os.getpid())


def _facts(request: wire.Event) -> None:
    wire.send({"event": "facts", "facts": asdict(facts.read())})


def _plan(request: wire.Event) -> None:
    if not _same_facts(request):
        return
    held = lock.take(_holder(request))
    plan = engine.plan(_manifest(request))
    held.close()
    for failure in plan.problems:
        wire.send(engine.trouble(failure))
    wire.send(plan.event())
    wire.send({"event": "end", "ok": not plan.problems, "empty": plan.empty})


def _apply(request: wire.Event) -> None:
    if not _same_facts(request):
        return
    began = time.monotonic()
    holder = _holder(request)
    try:
        held = lock.take(holder)
    except lock.Held as taken:
        same = taken.holder is not None and taken.holder.digest == request["digest"]
        if taken.holder is None or not same or taken.holder.operation != "apply":
            raise
        _attach(taken.holder, request)
        return
    for ended in runs.unseen():
        wire.send({"event": "ended", **ended})
    manifest = _manifest(request)
    plan = engine.plan(manifest)
    for failure in plan.problems:
        wire.send(engine.trouble(failure))
    wire.send(plan.event())
    if plan.hopeless:
        wire.send({"event": "end", "ok": False})
        return
    if plan.empty:
        seconds = round(time.monotonic() - began, 3)
        ok = not plan.problems
        _note(request, 0, ok, seconds)
        held.close()  # before the last word: who hears it may come again at once
        wire.send({"event": "end", "ok": ok, "changed": 0, "seconds": seconds})
        return
    _change(request, manifest, plan, holder, held)


def _change(request: wire.Event, manifest: Manifest, plan: engine.Plan, holder: lock.Holder, held: lock.Lock) -> None:
    import shutil

    from deploykit.agent import applying, incoming, release

    due = {change.app for change in plan.deployments}
    lacking = [each for each in manifest.chosen if each.app in due and not release.complete(each)]
    incoming.room()
    received = paths.STATE / "incoming"
    shutil.rmtree(received, ignore_errors=True)
    received.mkdir(mode=0o700)
    listings = {each.app: incoming.fetch(each, received) for each in lacking}

    def work(tell: Callable[[wire.Event], None]) -> tuple[int, bool]:
        try:
            return applying.apply(manifest, plan, listings, received, tell)
        finally:
            shutil.rmtree(received, ignore_errors=True)

    _detached(request, holder, held, work)


def _detached(
    request: wire.Event,
    holder: lock.Holder,
    held: lock.Lock,
    work: Callable[[Callable[[wire.Event], None]], tuple[int, bool]],
) -> None:
    """Works on whatever becomes of the connection, and reads along as long as it stands."""
    run = runs.Run(holder.run)

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
            run.write(engine.trouble(failure))
            count, ok = 0, False
        lock.settled()
        seconds = round(time.monotonic() - began, 2)
        _note(request, count, ok, seconds, changes)
        run.write({"event": "end", "ok": ok, "changed": count, "seconds": seconds})

    pid = runs.detach(run, body, held)
    ended = False

    def alive() -> bool:
        nonlocal ended
        if not ended:
            ended = os.waitpid(pid, os.WNOHANG)[0] == pid
        return not ended

    if run.relay(alive) is None:
        _cut_short(holder.run)


def _attach(holder: lock.Holder, request: wire.Event) -> None:
    """The same deploy is running already: shows it from its beginning to its end."""
    wire.send({"event": "attached", "who": holder.who, "age": round(holder.age, 1)})
    run = runs.Run(holder.run)

    def alive() -> bool:
        try:
            lock.take(holder).close()
        except lock.Held:
            return True
        return False

    while not run.path.exists():  # it still looks, or is sent files
        if not alive():  # it ended without a change to make: so there is none for us either, or we make it
            _apply(request)
            return
        time.sleep(0.05)

    if run.relay(alive) is None:
        _cut_short(holder.run)


def _cut_short(run: str) -> None:
    wire.send(
        {
            "event": "error",
            "what": "the run on the host was ended from outside before it was done",
            "detail": f"run {run}",
            "todo": "deploy again: it goes on where this one was stopped",
        }
    )
    wire.send({"event": "end", "ok": False})


def _note(request: wire.Event, changed: int, ok: bool, seconds: float, changes: Sequence[str] = ()) -> None:
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
    handle = os.open(paths.JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, json.dumps(entry, separators=(",", ":")).encode() + b"\n")
    finally:
        os.close(handle)


def _status(request: wire.Event) -> None:
    from deploykit.agent import status

    wire.send(status.read())
    wire.send({"event": "end", "ok": True})


def _rollback(request: wire.Event) -> None:
    from deploykit.agent import transaction

    holder = _holder(request)
    held = lock.take(holder)
    deployment = transaction.earlier(request["app"], request.get("release", ""))

    def work(tell: Callable[[wire.Event], None]) -> tuple[int, bool]:
        finish = transaction.deploy(
            deployment,
            None,
            paths.STATE,
            lambda app, name: tell({"event": "stage", "app": app, "name": name}),
            lambda app, text: tell({"event": "output", "app": app, "line": text}),
            newest=False,
        )
        finish()
        tell({"event": "deployed", "app": deployment.app, "release": deployment.release, "label": deployment.label})
        return 1, True

    _detached(request, holder, held, work)


def _restart(request: wire.Event) -> None:
    from deploykit.agent import restart

    holder = _holder(request)
    held = lock.take(holder)
    app, process = request["app"], request["process"]

    def work(tell: Callable[[wire.Event], None]) -> tuple[int, bool]:
        done = restart.restart(
            app,
            process,
            lambda name: tell({"event": "stage", "app": app, "name": name}),
            lambda text: tell({"event": "output", "app": app, "line": text}),
        )
        tell({"event": "restarted", "app": app, **done})
        return 1, True

    _detached(request, holder, held, work)


def _logs(request: wire.Event) -> None:
    from deploykit.agent import logs

    app = request["app"]
    since = time.time() - request["ago"] if request.get("ago") else request.get("since", 0)
    logs.show(
        app,
        request["process"],
        nginx=request["nginx"],
        lines=request["lines"],
        follow=request["follow"],
        since=since,
        tell=lambda name, line: wire.send({"event": "log", "app": app, "from": name, "line": line}),
    )
    wire.send({"event": "end", "ok": True})


def _leave(request: wire.Event) -> None:
    from deploykit.agent.leaving import leave

    holder = _holder(request)
    held = lock.take(holder)
    _detached(request, holder, held, lambda tell: leave(request["app"], erase=request["erase"], tell=tell))


def _secrets(request: wire.Event) -> None:
    from deploykit.agent import store, transaction

    app = request["app"]
    if request.get("set"):
        held = lock.take(_holder(request))
        for name, value in request["set"].items():
            store.write(app, name, Secret(value) if value is not None else None)
        held.close()
    used = transaction.used(app)
    wire.send(
        {"event": "secrets", "app": app, "names": sorted(store.read(app)), "at": store.times(app), "used": sorted(used)}
    )
    wire.send({"event": "end", "ok": True})


#: The operations that look at the whole host: for them alone programs were begun ahead.
_LOOKING = ("plan", "apply")

_OPERATIONS: dict[str, Callable[[wire.Event], None]] = {
    "facts": _facts,
    "plan": _plan,
    "apply": _apply,
    "status": _status,
    "rollback": _rollback,
    "restart": _restart,
    "logs": _logs,
    "leave": _leave,
    "secrets": _secrets,
}
