"""The programs of a release beside its main web server: proved steady before the switch, handed over, and stopped.

Workers of the new release begin while those of the old one still work, so none that dies on import is found out too
late; the old ones are asked to finish what they hold once the new release is live. A scheduler (`once`) is the
exception: the old one ends first, and comes back when the new release fails. That never two of it run is not this
order's doing alone: each runs under a lock of its own (flock, in supervisor's file), whatever is killed when.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection

from deploykit.agent import slots, sockets, supervisord
from deploykit.agent.deployment import Deployment, Program
from deploykit.agent.process import forget
from deploykit.agent.resource import Failed, NotYet
from deploykit.model import layout

_TODO = "correct the app (or its [apps.{app}.processes]) and deploy again; the live release is untouched"

#: Supervisor's words for a program that runs, or that it starts by itself.
_UP = ("STARTING", "RUNNING", "BACKOFF")


class Beside:
    """The further programs of one deployment in one slot, from their start until they are trusted."""

    def __init__(self, deployment: Deployment, slot: str, tell: Callable[[str], None]) -> None:
        self._deployment, self._slot, self._tell = deployment, slot, tell
        self._starts: dict[str, float] = {}  # when supervisor started each, by its word
        self._since: dict[str, float] = {}  # when each was seen to have started, by a clock that cannot be set
        self._begins = {each.name: slots.size(layout.log(self._name(each))) for each in deployment.programs}

    @property
    def names(self) -> list[str]:
        """Those that may run beside the old release's."""
        return [self._name(each) for each in self._deployment.programs if not each.once]

    def _name(self, program: Program) -> str:
        return layout.program(self._deployment.app, self._slot, program.name)

    def hand_over(self, before: str | None) -> bool:
        """Ends what may run only once in the slot `before`, and begins it here; whether there is any here."""
        once = [each for each in self._deployment.programs if each.once]
        app = self._deployment.app
        if before:
            # Whatever the old release calls them: what is to run once there is said by its own configuration.
            old = configured(app, before, once=True)
            if old:
                self._tell(
                    f"waiting until {', '.join(name.partition('.')[2] for name in old)} of the old release has ended"
                )
                supervisord.remove(*old)
        if once:
            supervisord.add(*(self._name(each) for each in once))
        return bool(once)

    def steady(self, web: float, *, once: bool) -> None:
        """Waits until each has run for as long as it must. Raises Failed with the words of one that ended.

        `web`: seconds in which the web server came to answer. A worker imports the same project, and dies of what it
        then finds: its steadiness counts from twice that on.
        """
        programs = [each for each in self._deployment.programs if once or not each.once]
        limit = self._deployment.health.start + max((each.steady for each in programs), default=0) + 2 * web
        deadline = time.monotonic() + limit
        waiting = list(programs)
        while waiting:
            forget()
            states = {each.name: supervisord.state(self._name(each)) for each in programs}
            for program in programs:
                if states[program.name] not in ("STARTING", "RUNNING"):
                    self._failed(program, f"does not stay up (supervisor says {states[program.name]})")
                start = supervisord.started(self._name(program))
                if start and self._starts.setdefault(program.name, start) != start:
                    self._failed(program, "does not stay up (supervisor had to start it again)")
                if start:
                    self._since.setdefault(program.name, time.monotonic())
            waiting = [
                each
                for each in waiting
                if states[each.name] != "RUNNING"
                or not self._answers(each)
                or (not each.socket and self._age(each) < each.steady + 2 * web)
            ]
            if waiting and time.monotonic() > deadline:
                self._failed(waiting[0], "does not answer on its socket" if waiting[0].socket else "does not start")
            if waiting:
                time.sleep(0.1)

    def _age(self, program: Program) -> float:
        now = time.monotonic()
        return now - self._since.get(program.name, now)

    def _answers(self, program: Program) -> bool:
        if not program.socket:
            return True
        deployment = self._deployment
        place = layout.socket(deployment.app, self._slot, program.socket)
        if not place.exists():
            return False
        from deploykit.agent import visits

        health = deployment.health
        try:
            path = program.paths[0] if program.paths else "/"
            answer = visits.ask(str(place), path, health.host, health.scheme, timeout=10)
        except (OSError, visits.HTTPException):
            return False
        return sockets.of_release(answer.peer, deployment.release)

    def _failed(self, program: Program, what: str) -> None:
        app = self._deployment.app
        raise Failed(
            f"the process {program.name} of release {self._deployment.release} of {app} {what}",
            slots.words(layout.log(self._name(program)), self._begins[program.name]),
            _TODO.format(app=app),
        )


def configured(app: str, slot: str, *, once: bool = False) -> list[str]:
    """The programs that a slot's configuration names beside the main one; with `once`, those that may run only once."""
    try:
        text = layout.supervisor(app, slot).read_text()
    except OSError:
        return []
    found = re.findall(rf"^\[program:({re.escape(app)}-{slot}\.\S+)\]\n(?:;.*\n)*command=(.*)$", text, re.MULTILINE)
    return [name for name, command in found if not once or re.search(r"/usr/bin/flock | once=\S+ .*-- ", command)]


def resume(app: str, slot: str) -> None:
    """Brings back what a deploy that failed had ended of a slot that is live."""
    forget()
    try:
        # Supervisor still knows one that was stopped and not yet removed when the deploy failed.
        up = {name for name, each in supervisord.processes().items() if each["statename"] in _UP}
    except NotYet:
        return  # supervisor does not run: it starts all of them when it does
    missing = sorted(set(configured(app, slot)) - up)
    if missing:
        supervisord.add(*missing)


def stop(app: str, slot: str) -> None:
    """Asks the further programs of a slot to finish what they hold; they take nothing new from now on."""
    supervisord.stop(*(name for name in supervisord.of(app, slot) if name != f"{app}-{slot}"))


def busy(app: str, slot: str) -> Collection[str]:
    """Those that have not ended yet, by their names."""
    forget()
    try:
        running = [name for name in supervisord.of(app, slot) if supervisord.state(name) == "STOPPING"]
    except NotYet:
        return ()
    return [name.partition(".")[2] for name in running]
