"""The deploy of one app: everything that can fail happens before the switch, and after it there is a way back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from deploykit.agent import kept_releases, programs, release, slots, trees, virtualenv
from deploykit.agent.attempt import attempt
from deploykit.agent.build import Steps
from deploykit.agent.deployment import Deployment, live, other, record, running
from deploykit.agent.management import Management
from deploykit.agent.plan import compare
from deploykit.agent.resource import Failed, NotYet
from deploykit.model import layout

#: `stage(app, name)` before each step, `line(app, text)` for what a step prints.
Stage = Callable[[str, str], None]
Line = Callable[[str, str], None]

#: Aspects that need no new process: links and leftovers are put right in place.
_SETTLED_IN_PLACE = {"live", "socket", "boot", "environment", "files", "other slot"}


def deploy(
    deployment: Deployment,
    listing: release.Listing | None,
    received: Path,
    stage: Stage,
    line: Line,
    *,
    newest: bool = True,
    anew: bool = False,
) -> Callable[[], None]:
    """Brings `deployment` live. `listing` is None when its files are on the host already. `newest`: not a rollback.

    `anew`: its processes are replaced though nothing differs.

    Returns what is left to do when the new release serves already: to wait for the old one's last requests, end it,
    and clear up. Raises Failed; whatever was live before is live then, unchanged.
    """
    app = deployment.app
    observed = deployment.observe()
    differences = {each.name for each in compare(deployment.wanted(), observed)}
    differences -= {f"socket {name}" for name in deployment.sockets}  # as the main one: a link
    current = live(app)
    if current is not None and differences <= _SETTLED_IN_PLACE and not anew:
        settle(deployment, current)
        return lambda: None
    if listing is not None and release.complete(deployment):
        listing = None  # it was built ahead of its turn
    work = _Deploy(deployment, current, stage, line)
    try:
        work.prepare(listing, received)
        work.start()
        work.switch(newest=newest)
    except BaseException as error:
        left = work.undo()
        if work.switching and isinstance(error, (Failed, NotYet, OSError)):
            failure = _unwatched(app, error, back=current is not None)
        elif isinstance(error, Failed):
            failure = error
        else:
            raise
        if left:
            failure.detail = "\n".join(filter(None, (failure.detail, f"not undone: {'; '.join(left)}")))
        raise failure from None
    return work.finish


class _Deploy:
    """The phases of one deploy. What any of them has done is taken back by `undo`, until `finish`."""

    def __init__(self, deployment: Deployment, current: str | None, stage: Stage, line: Line) -> None:
        self._deployment, self._current = deployment, current
        self._fresh = other(current) if current else "a"
        app = deployment.app
        self._stage: Callable[[str], None] = lambda name: stage(app, name)
        self._line: Callable[[str], None] = lambda text: line(app, text)
        self._commands = Management(deployment, self._fresh, self._line)
        self._built = False
        self._old: Path | None = None  # a release of the same name that was there, moved aside
        self._previous = _target(layout.previous_release(app))
        self._good = record(app)["releases"]
        self.switching = False

    def prepare(self, listing: release.Listing | None, received: Path) -> None:
        """The release's files, its virtualenv, and its database at the state that it needs."""
        deployment, fresh = self._deployment, self._fresh
        slots.claim(deployment, fresh)
        for resource in deployment.files(fresh):
            resource.change(resource.observe())
        if listing is not None:
            self._stage("code")
            partial = release.lay(deployment, listing, received)
            self._old = _make_room(deployment)
            partial.rename(deployment.folder)
            self._built = True
        if deployment.links:
            slots.lead(deployment.app, deployment.release, fresh)
        steps = Steps(deployment, fresh, self._commands, self._stage, self._line)
        with self._commands:
            if listing is not None:
                steps.build(listing)
            elif not virtualenv.complete(deployment):
                self._stage("virtualenv")
                virtualenv.install(deployment, self._line)
            steps.migrate()

    def start(self) -> None:
        """Its processes, in the slot that is not live, and the proof that they answer there."""
        deployment, fresh = self._deployment, self._fresh
        self._stage("start")
        try:
            beside = programs.Beside(deployment, fresh, self._line)
            took = slots.start(deployment, fresh, beside.names)
            if beside.names:
                self._stage("processes")
                beside.steady(took, once=False)
            if deployment.checks:
                from deploykit.agent import checks

                self._stage("checks")
                checks.before(deployment, fresh, self._commands)
            if beside.hand_over(self._current):  # last: the live release has no scheduler from here to the switch
                self._stage("scheduler")
                beside.steady(took, once=True)
        except slots.Unhealthy as failure:
            # Without a LOGGING of the project's, Django logs no error's cause unless DEBUG is on: ask for it.
            if failure.status >= 500 and "Traceback" not in failure.detail:
                failure.detail = f"{failure.detail}\n{self._commands.error(deployment.health)}".strip()
            raise

    def switch(self, *, newest: bool) -> None:
        """It is the live one, is watched, and counts as good then."""
        deployment = self._deployment
        self._stage("switch")
        self.switching = True
        slots.switch(deployment.app, deployment.release, self._fresh)
        slots.watch(deployment, self._fresh)
        if deployment.checks:
            from deploykit.agent import checks

            checks.after(deployment)
        kept_releases.remember(deployment, newest=newest)

    def undo(self) -> list[str]:
        """The live release from before is live, whole, alone, with all its processes. What could not be undone.

        Each step is tried whatever becomes of the others: the disk may be full still.
        """
        deployment, current = self._deployment, self._current
        app = deployment.app
        failed: list[str] = []

        def undone(what: str, step: Callable[[], object]) -> bool:
            outcome = attempt(step, what, app)
            if isinstance(outcome, Failed):
                failed.append(outcome.what)
            return not isinstance(outcome, Failed)

        if self.switching:
            undone("the switch", self._back)
            undone("the record of good releases", lambda: kept_releases.restore(app, self._good))
        if undone(f"slot {self._fresh}", self._clear):
            if self._built:
                undone("the new release", lambda: trees.remove(deployment.folder))
            if self._old is not None:
                undone("the release of the same name", self._put_back)
        if current and deployment.links and running(app, current) == deployment.release:
            undone("its configuration files", lambda: slots.lead(app, deployment.release, current))
        if current:
            undone("the processes of the live release", lambda: programs.resume(app, current))
        return failed

    def _back(self) -> None:
        app, current, fresh = self._deployment.app, self._current, self._fresh
        if current is None:  # there is nothing to go back to; what does not work must not count as deployed
            for path in (layout.socket(app, "live"), layout.boot(app), layout.live_release(app)):
                path.unlink(missing_ok=True)
            return
        try:
            slots.switch_back(app, running(app, current), current, self._previous)
        finally:
            if live(app) == current:
                programs.stop(app, fresh)
                slots.drain(app, fresh, 10)

    def _clear(self) -> None:
        app = self._deployment.app
        if self.switching and self._current and live(app) != self._current:
            raise Failed("the new release goes on: visitors could not be led back to the one before")
        slots.clear(app, self._fresh)

    def _put_back(self) -> None:
        deployment, old = self._deployment, self._old
        assert old is not None
        old.rename(deployment.folder)
        if _target(layout.live_release(deployment.app)) == f"releases/{old.name}":
            slots.point(layout.live_release(deployment.app), f"releases/{deployment.release}")

    def finish(self) -> None:
        """The release before ends when it has answered what it has; what is too old goes. Raises Failed.

        The new release is live and stays so; what fails here, the next deploy does.
        """
        deployment, current = self._deployment, self._current
        app = deployment.app
        steps: list[tuple[str, Callable[[], object]]] = []
        if current:
            steps += [
                ("the end of its processes", lambda: self._drain(current)),
                (f"slot {current}", lambda: slots.clear(app, current)),
            ]
        old = self._old
        if old is not None:
            steps.append((old.name, lambda: trees.remove(old)))
        steps.append(("older releases", lambda: kept_releases.prune(deployment)))
        failures = [each for each in (attempt(step, what, app) for what, step in steps) if isinstance(each, Failed)]
        if failures:
            raise Failed(
                f"release {deployment.release} of {app} is live, but the one before could not be cleared",
                "\n".join(each.what for each in failures),
                "correct that on the host; the next deploy clears it",
                app,
            )

    def _drain(self, current: str) -> None:
        app = self._deployment.app
        self._stage("drain")
        programs.stop(app, current)
        slots.drain(app, current, self._deployment.health.drain)
        if busy := programs.busy(app, current):
            self._line(f"{', '.join(busy)} of the old release finish what they hold")


def _target(link: Path) -> str:
    """Where a link leads, "" when there is none."""
    try:
        return os.readlink(link)
    except OSError:
        return ""


def prepare(deployment: Deployment, listing: release.Listing, received: Path, stage: Stage, line: Line) -> None:
    """Builds a release before its turn, when nothing of it is there. Raises Failed, with nothing left of it."""
    app = deployment.app
    if deployment.folder.exists():
        return
    try:
        stage(app, "code")
        release.lay(deployment, listing, received).rename(deployment.folder)
        slot = other(live(app) or "b")
        with Management(deployment, slot, lambda text: line(app, text)) as commands:
            Steps(deployment, slot, commands, lambda name: stage(app, name), lambda text: line(app, text)).build(
                listing
            )
    except BaseException:
        trees.remove(deployment.folder, check=False)
        raise


def _unwatched(app: str, error: Exception, *, back: bool) -> Failed:
    what = f"{app} could not be switched to the new release"
    failure = error if isinstance(error, Failed) else Failed(what, str(error))
    rest = "; the release before is live again" if back else ""
    failure.todo = f"correct the app and deploy again{rest}"
    return failure


def settle(deployment: Deployment, current: str) -> None:
    """Puts links right and clears what an interrupted deploy left in the other slot."""
    if deployment.links:
        slots.lead(deployment.app, deployment.release, current)
    slots.switch(deployment.app, deployment.release, current)
    if all(each["release"] != deployment.release for each in record(deployment.app)["releases"]):
        # The deploy was killed between its switch and this: what nobody has watched yet must not count as good.
        app, before = deployment.app, other(current)
        try:
            slots.watch(deployment, current)
        except (Failed, NotYet, OSError) as error:
            if running(app, before):
                _back(app, before, current)
            raise _unwatched(app, error, back=bool(running(app, before))) from None
        kept_releases.remember(deployment)
    slots.clear(deployment.app, other(current))
    programs.resume(deployment.app, current)
    kept_releases.prune(deployment)


def _make_room(deployment: Deployment) -> Path | None:
    """Moves an altered or half-made release of the same name aside: processes that run from it keep their files."""
    if not deployment.folder.exists():
        return None
    aside = deployment.folder.with_name(f"{deployment.release}.{time.monotonic_ns():x}.old")
    live_link = layout.live_release(deployment.app)
    served = live_link.is_symlink() and os.readlink(live_link) == f"releases/{deployment.release}"
    deployment.folder.rename(aside)
    if served:  # its static files are served from there until the switch
        slots.point(live_link, f"releases/{aside.name}")
    return aside


def _back(app: str, current: str, fresh: str) -> None:
    slots.switch_back(app, running(app, current), current, "")
    programs.stop(app, fresh)
    slots.drain(app, fresh, 10)
    slots.clear(app, fresh)
    programs.resume(app, current)
