"""Planning and applying. The host's lock is held for a look and for the work, never while the controller is waited for.

So nothing is received, and nothing is sent, by a process that has it: a connection that died, a stopped terminal or a
computer that sleeps costs the next run nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from deploykit.agent import engine, lock, paths, runs, wire
from deploykit.agent.resource import Failed

if TYPE_CHECKING:
    from deploykit.agent.deployment import Deployment
    from deploykit.agent.incoming import Parcel

_ROUNDS = 4  # looks, when others change the host each time while files are sent
_SOON = wire.SILENCE  # seconds in which a run that has the lock begins its work, or a look ends


def take(holder: lock.Holder) -> lock.Lock:
    """Takes the host's lock, and removes what dead runs had received. Raises lock.Held."""
    held = lock.take(holder)
    if left := paths.names(paths.INCOMING):
        from deploykit.agent import incoming

        incoming.sweep(left)
    return held


def plan(holder: lock.Holder, manifest: engine.Manifest) -> None:
    """Says what would be changed."""
    with take(holder):
        found = engine.plan(manifest)
    _send([*map(engine.trouble, found.problems), found.event()])
    wire.send({"event": "end", "ok": not found.problems, "empty": found.empty})


def apply(request: wire.Event, holder: lock.Holder, manifest: engine.Manifest) -> None:
    """Looks, receives what the host lacks, and works. Raises Failed, lock.Held and wire.Gone.

    When another run had the lock while files were sent, the host is looked at again: what differs then is said, and
    that is what is applied.
    """
    began = time.monotonic()
    parcel: Parcel | None = None
    plan: engine.Plan | None = None
    try:
        for _ in range(_ROUNDS):
            held = _taken(holder)
            if isinstance(held, lock.Holder):
                _attach(held)
                return
            with held:
                said: list[wire.Event] = [{"event": "ended", **each} for each in runs.unseen()]
                if plan is None or held.before is None or held.before.run != holder.run:
                    before, plan = plan, engine.plan(manifest)
                    said += map(engine.trouble, plan.problems)
                    said += [plan.event()] if before is None or plan.event() != before.event() else []
                if plan.hopeless or plan.empty:
                    seconds = round(time.monotonic() - began, 3)
                    if not plan.hopeless:
                        runs.note(request, 0, not plan.problems, seconds)
                    held.close()  # before the last word: who hears it may come again at once
                    _send(said)
                    wire.send(_nothing(plan, seconds))
                    return
                lacking, problem = _lacking(manifest, plan)
                if lacking and parcel is None:
                    parcel = _parcel(holder.run)
                if parcel is not None:
                    lacking = parcel.lacks(lacking)
                if not lacking and problem is None:
                    work = _work(manifest, plan, parcel)
                    parcel = None  # it is that process's to remove
                    runs.follow(request, holder, held, work, said)
                    return
            _send(said)
            if problem is not None:
                raise problem
            assert parcel is not None
            for each in lacking:
                parcel.fetch(each)
    finally:
        if parcel is not None:
            parcel.drop()
    raise Failed("other runs changed the host each time while files were sent", todo="deploy again")


def _nothing(plan: engine.Plan, seconds: float) -> wire.Event:
    if plan.hopeless:
        return {"event": "end", "ok": False}
    return {"event": "end", "ok": not plan.problems, "changed": 0, "seconds": seconds}


def _taken(holder: lock.Holder) -> lock.Lock | lock.Holder:
    """The host's lock, or who has it for the very same work. What lasts but for a moment is waited for.

    Raises lock.Held.
    """
    deadline = time.monotonic() + _SOON
    while True:
        try:
            return take(holder)
        except lock.Held as taken:
            other = taken.holder
            same = other is not None and (other.operation, other.digest) == ("apply", holder.digest)
            if other is not None and same and runs.Run(other.run).alive():
                return other
            passing = other is None or same or other.operation == "plan"
            if not passing or time.monotonic() > deadline:
                raise
        if not wire.listening():
            raise wire.Gone("the controller is gone")
        time.sleep(0.05)


def _attach(holder: lock.Holder) -> None:
    """The same deploy is running already: shows it from its beginning to its end."""
    wire.send({"event": "attached", "who": holder.who, "age": round(holder.age, 1)})
    run = runs.Run(holder.run)
    runs.read_along(run, run.alive)


def _send(events: Iterable[wire.Event]) -> None:
    for event in events:
        wire.send(event)


def _lacking(manifest: engine.Manifest, plan: engine.Plan) -> tuple[list[Deployment], Failed | None]:
    """(the deployments whose code is not there, what forbids to begin)."""
    from deploykit.agent import incoming, release

    due = {change.app for change in plan.deployments}
    return [each for each in manifest.chosen if each.app in due and not release.complete(each)], incoming.full()


def _parcel(run: str) -> Parcel:
    from deploykit.agent.incoming import Parcel

    return Parcel(run)


def _work(manifest: engine.Manifest, plan: engine.Plan, parcel: Parcel | None) -> runs.Work:
    from deploykit.agent import applying

    def work(tell: Callable[[wire.Event], None]) -> tuple[int, bool]:
        if parcel is None:
            return applying.apply(manifest, plan, {}, paths.INCOMING, tell)
        try:
            return applying.apply(manifest, plan, parcel.listings, parcel.folder, tell)
        finally:
            parcel.drop()

    return work
