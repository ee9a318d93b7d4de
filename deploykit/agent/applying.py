"""Makes a host as its manifest says. In the order of the manifest; there is no dependency graph."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from deploykit.agent import early, facts, paths, pending, release, slots, transaction, virtualenv
from deploykit.agent.attempt import attempt
from deploykit.agent.deployment import Deployment
from deploykit.agent.engine import (
    Manifest,
    Plan,
    Tell,
    asked,
    examine_deployment,
    looked_at,
    owned,
    remember,
    trouble,
)
from deploykit.agent.plan import examine, removals
from deploykit.agent.process import forget, listen
from deploykit.agent.resource import Failed, Resource


def apply(
    manifest: Manifest,
    plan: Plan,
    listings: dict[str, release.Listing],
    received: Path,
    tell: Tell,
) -> tuple[int, bool]:
    """Makes it so. Returns (number of changes, whether all went well); failures were told.

    `plan` is what was found a moment ago, under the same lock. What fails of one app is told, and the rest of that app
    is left as it is; the host's own resources and the other apps are changed all the same.
    """
    run = _Run(manifest, plan, tell)
    listen(lambda line: tell({"event": "progress", "line": line}))
    try:
        if plan.changes:  # whatever is made now is ours, also when a later change fails
            remember([*run.others, *manifest.resources])
        run.remove()
        if plan.changes:
            with early.begun(manifest.resources, manifest.chosen, listings, received, *_telling_of(tell)):
                run.change(manifest.resources)
        run.settle()
    except Failed as failure:
        tell(trouble(failure))
        return run.count, False
    due = run.due()
    rest = [each for each in manifest.chosen if each not in due and each.app not in run.failed]
    problems: list[Failed] = []
    with _deployed(due, listings, received, tell) as failures:
        done = sum(each is None for each in failures)
        forget()  # and look again, while the replaced processes end
        with asked(manifest.resources):
            remember([*run.kept(), *manifest.resources])
            mine = [each for each in manifest.resources if each.app not in run.failed]
            left = looked_at(rest, examine_deployment, problems) + looked_at(mine, examine, problems)
    virtualenv.prune()
    count = run.count + done
    if done < len(failures):
        return count, False
    left += looked_at(due, examine_deployment, problems)
    for change in left:
        names = ", ".join(each.name for each in change.differences)
        tell(
            {
                "event": "error",
                "what": f"{change.key} is not as wanted after it was changed",
                "detail": f"still different: {names}" if names else "the host cannot tell",
                "todo": "something else on the host changes it back; find out what, then deploy again",
            }
        )
    for problem in problems:
        tell(trouble(problem))
    return count, not (left or problems or run.failed)


class _Run:
    """The changes of one run, up to the apps' releases: what was done, and which apps have failed."""

    def __init__(self, manifest: Manifest, plan: Plan, tell: Tell) -> None:
        self._manifest, self._plan, self._tell = manifest, plan, tell
        self.count = 0
        self.others = owned(but={each.key for each in manifest.resources})
        self.failed = {each.app for each in plan.problems if each.app}  # told already, with the plan

    def _go(self, work: Callable[[], int], what: str, app: str) -> None:
        """Adds to the count, or notes whose failure it is. Raises Failed for one of the host's own."""
        outcome = attempt(work, what, app)
        if isinstance(outcome, Failed):
            self._failed(outcome)
        else:
            self.count += outcome

    def _failed(self, failure: Failed) -> None:
        if not failure.app:
            raise failure
        self.failed.add(failure.app)
        self._tell(trouble(failure))

    def remove(self) -> None:
        """Takes away what is not wanted any more."""
        apps = {each.app for each in self._manifest.deployments}
        gone = [path.stem for path in sorted(paths.APPS.glob("*.json")) if path.stem not in apps]
        for app in gone:
            self._tell({"event": "changing", "key": f"app {app}", "verb": "remove"})
            self._go(functools.partial(_retire, app), f"app {app}", app)
        for resource in removals(self.others):
            if resource.app and resource.app in self.failed:
                continue
            self._tell({"event": "changing", "key": resource.key, "verb": "remove"})
            self._go(functools.partial(_remove, resource), resource.key, resource.app)
        if self.count:
            for resource in self.others:
                if resource.app and resource.app not in apps and resource.key == f"user {resource.app}":
                    self._go(functools.partial(_end_processes, resource.app), resource.key, resource.app)

    def kept(self) -> list[Resource]:
        """What stays ours though the manifest does not have it: data, and what could not be removed."""
        return [each for each in self.others if not each.removable or (each.app and each.app in self.failed)]

    def change(self, resources: Sequence[Resource]) -> None:
        """Makes each resource as wanted, in order."""
        for index, resource in enumerate(resources):
            if resource.app and resource.app in self.failed:
                continue
            if resource.together:
                several = [each for each in resources[index:] if type(each) is type(resource)]
                self._together(several)
            else:
                self._go(functools.partial(_change, resource, self._tell), resource.key, resource.app)

    def _together(self, several: Sequence[Resource]) -> None:
        """Changes all of one kind in one go; where that fails and they are of apps, each app's for itself."""
        due = [each for each in several if each.app not in self.failed or not each.app]
        changes = [each for each in due if self._differs(each)]
        if not changes:
            return
        change = functools.partial(_change_together, changes, self._tell)
        apps = dict.fromkeys(each.app for each in changes)
        if len(apps) == 1 or "" in apps:
            self._go(change, changes[0].key, next(iter(apps)))
            return
        outcome = attempt(change, changes[0].key, "")
        if not isinstance(outcome, Failed):
            self.count += outcome
            return
        for app in apps:
            mine = [each for each in changes if each.app == app]
            self._go(functools.partial(_change_together, mine, self._tell), mine[0].key, app)

    def _differs(self, resource: Resource) -> bool:
        seen = attempt(functools.partial(examine, resource), resource.key, resource.app)
        if isinstance(seen, Failed):
            self._failed(seen)
            return False
        return seen is not None

    def settle(self) -> None:
        """Does the actions that are owed."""
        failures: list[Failed] = []
        self.count += pending.settle_all(
            self._manifest.resources, lambda name: self._tell({"event": "action", "name": name}), failures
        )
        for failure in failures:
            self._failed(failure)

    def due(self) -> list[Deployment]:
        """The apps whose release is to be brought live: what was changed meanwhile may be an app's affair, too."""
        planned = {change.app for change in self._plan.deployments}
        chosen = [each for each in self._manifest.chosen if each.app not in self.failed]
        if not self.count:
            chosen = [each for each in chosen if each.app in planned]
        problems: list[Failed] = []
        differing = {change.app for change in looked_at(chosen, examine_deployment, problems)}
        for problem in problems:
            self._failed(problem)
        return [each for each in chosen if each.app in differing]


def _retire(app: str) -> int:
    slots.retire(app)
    return 1


def _end_processes(app: str) -> int:
    """The services of an app that left have ended: what runs now, it has started by itself."""
    from deploykit.agent import user_processes

    user_processes.end(app)
    return 0


def _remove(resource: Resource) -> int:
    pending.owe(resource)
    resource.remove()
    forget()
    return 1


def _change(resource: Resource, tell: Tell) -> int:
    change = examine(resource)
    if change is None:
        return 0
    tell({"event": "changing", "key": resource.key, "verb": change.verb})
    pending.owe(resource)
    resource.change(resource.observe())
    return _changed([resource])


def _change_together(several: Sequence[Resource], tell: Tell) -> int:
    change = examine(several[0])
    tell(
        {
            "event": "changing",
            "key": ", ".join(each.key for each in several),
            "verb": change.verb if change else "change",
        }
    )
    for each in several:
        pending.owe(each)
    type(several[0]).change_together(several)
    return _changed(several)


def _changed(several: Sequence[Resource]) -> int:
    """How many, when all of them are as wanted now. Raises Failed."""
    forget()
    for each in several:
        left = examine(each)
        if left is not None:
            names = ", ".join(f"{d.name} ({d.old!s} instead of {d.new!s})" for d in left.differences)
            raise Failed(f"{each.key} is not as wanted after it was changed", names, app=each.app)
    return len(several)


@contextlib.contextmanager
def _deployed(
    due: Sequence[Deployment],
    listings: dict[str, release.Listing],
    received: Path,
    tell: Tell,
) -> Iterator[list[Failed | None]]:
    """Each app is a transaction of its own: one that fails leaves the others alone. A few at a time.

    The context is entered when all serve, with how each went; it is left when what they replaced has ended, too.
    """
    if not due:
        yield []
        return

    ends: list[tuple[str, Future[None]]] = []

    def one(deployment: Deployment) -> Failed | None:
        began = time.monotonic()
        listing = listings.get(deployment.app)
        deploy = functools.partial(transaction.deploy, deployment, listing, received, *_telling_of(tell))
        finish = attempt(deploy, deployment.key, deployment.app)
        if isinstance(finish, Failed):
            return finish
        seconds = round(time.monotonic() - began, 2)
        tell({"event": "deployed", "app": deployment.app, "release": deployment.release, "seconds": seconds})
        ends.append((deployment.app, ending.submit(finish)))
        return None

    with ThreadPoolExecutor(max_workers=2) as ending:
        with ThreadPoolExecutor(max_workers=_side_by_side()) as pool:
            outcomes = list(pool.map(one, due))
        for failure in outcomes:
            if failure is not None:
                tell(trouble(failure))
        yield outcomes
        for app, end in ends:
            ended = attempt(end.result, f"the end of {app}'s release before", app)
            if isinstance(ended, Failed):  # what it left is cleared at the next deploy
                tell(trouble(ended))


def _telling_of(tell: Tell) -> tuple[transaction.Stage, transaction.Line]:
    return (
        lambda app, name: tell({"event": "stage", "app": app, "name": name}),
        lambda app, text: tell({"event": "output", "app": app, "line": text}),
    )


def _side_by_side() -> int:
    """Apps that are deployed at once: much of each is waiting, but each needs its Django in memory meanwhile."""
    now = facts.read()
    return min(now.processors + 1, max(2, now.memory // 1024), 6)
