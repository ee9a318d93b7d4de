"""One request, answered with events. Looking happens while connected; changing goes on without the connection.

Each operation loads what it alone needs: on a host with nothing to do, loading was most of what the agent did.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from types import TracebackType

from deploykit.agent import converge, engine, facts, lock, meanwhile, paths, process, runs, wire
from deploykit.agent.engine import Manifest
from deploykit.agent.resource import Failed, Resource, Secret, decode

TIRED = 94  # exit status: no request came; the controller may start the agent again


def main() -> None:
    """Answers the request on standard input. Exit status 0: it was answered, whatever the answer."""
    os.umask(0o022)
    sys.excepthook = _explain
    threading.excepthook = lambda raised: _explain(raised.exc_type, raised.exc_value, raised.exc_traceback)
    meanwhile.load()
    try:
        request = wire.request()
    except wire.Tired:
        sys.exit(TIRED)
    except wire.Gone:
        return  # nothing was asked
    if request["operation"] not in _LOOKING:
        process.abandon()
    try:
        try:
            _OPERATIONS[request["operation"]](request)
        except Failed as failure:
            _end(engine.trouble(failure))
        except lock.Held as held:
            _refuse(held.holder)
        except OSError as error:
            _end(
                {
                    "event": "error",
                    "what": f"the host refuses: {error.strerror or error}",
                    "detail": str(error.filename or ""),
                    "todo": "free some disk space" if error.errno == 28 else "mend that on the host, then deploy again",
                }
            )
    except wire.Gone as gone:
        print(gone, file=sys.stderr)
        sys.exit(1)


def _end(*events: wire.Event, **more: bool) -> None:
    for event in events:
        wire.send(event)
    wire.send({"event": "end", "ok": False, **more})


def _explain(kind: type[BaseException], raised: BaseException | None, at: TracebackType | None) -> None:
    """A fault of our own, on standard error: it may quote what it stumbled over."""
    import traceback

    from deploykit.agent import masking

    print(masking.text("".join(traceback.format_exception(kind, raised, at))), file=sys.stderr, flush=True)


def _refuse(holder: lock.Holder | None) -> None:
    who = f"{holder.who} has had it for {holder.age:.0f} s ({holder.operation})" if holder else "another run has it"
    _end(
        {
            "event": "error",
            "what": f"the host is locked: {who}",
            "detail": "",
            "todo": "wait until it has ended; the same `fab deploy` as that one shows how far it is",
        },
        locked=True,
    )


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
    if _same_facts(request):
        converge.plan(_holder(request), _manifest(request))


def _apply(request: wire.Event) -> None:
    if _same_facts(request):
        converge.apply(request, _holder(request), _manifest(request))


def _status(request: wire.Event) -> None:
    from deploykit.agent import status

    wire.send(status.read())
    wire.send({"event": "end", "ok": True})


def _detached(request: wire.Event, work: runs.Work) -> None:
    holder = _holder(request)
    with converge.take(holder) as held:
        runs.follow(request, holder, held, work)


def _rollback(request: wire.Event) -> None:
    from deploykit.agent import kept_releases, transaction

    def work(tell: Callable[[wire.Event], None]) -> tuple[int, bool]:
        deployment = kept_releases.earlier(request["app"], request.get("release", ""))
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

    _detached(request, work)


def _restart(request: wire.Event) -> None:
    from deploykit.agent import restart

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

    _detached(request, work)


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

    _detached(request, lambda tell: leave(request["app"], erase=request["erase"], tell=tell))


def _secrets(request: wire.Event) -> None:
    from deploykit.agent import kept_releases, store

    app = request["app"]
    if request.get("set"):
        with converge.take(_holder(request)):
            for name, value in request["set"].items():
                store.write(app, name, Secret(value) if value is not None else None)
    used = kept_releases.used(app)
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
