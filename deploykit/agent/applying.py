"""Makes a host as its manifest says. In the order of the manifest; there is no dependency graph."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from deploykit.agent import early, facts, paths, pending, release, slots, transaction, virtualenv
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
from deploykit.agent.resource import Failed, NotYet, Resource


def apply(
    manifest: Manifest,
    plan: Plan,
    listings: dict[str, release.Listing],
    received: Path,
    tell: Tell,
) -> tuple[int, bool]:
    """Makes it so. Returns (number of changes, whether all went well); failures were told.

    `plan` is what was found a moment ago, under the same lock.
    """
    count = 0
    wanted = {each.key for each in manifest.resources}
    others = owned(but=wanted)
    apps = {each.app for each in manifest.deployments}
    listen(lambda line: tell({"event": "progress", "line": line}))
    try:
        if plan.changes:  # whatever is made now is ours, also when a later change fails
            remember([*others, *manifest.resources])
        count += _remove(others, apps, tell)
        if plan.changes:
            with early.begun(manifest.resources, manifest.chosen, listings, received, *_telling_of(tell)):
                count += _change(manifest.resources, tell)
        count += pending.settle_all(manifest.resources, lambda name: tell({"event": "action", "name": name}))
    except Failed as failure:
        tell(trouble(failure))
        return count, False
    # What was changed meanwhile may be an app's affair, too: then each is looked at once more.
    planned = {change.app for change in plan.deployments}
    due = [each for each in manifest.chosen if (count or each.app in planned) and examine_deployment(each) is not None]
    rest = [each for each in manifest.chosen if each.app not in {one.app for one in due}]
    problems: list[Failed] = []
    with _deployed(due, listings, received, tell) as failures:
        done = sum(each is None for each in failures)
        forget()  # and look again, while the replaced processes end
        with asked(manifest.resources):
            remember([*(each for each in others if not each.removable), *manifest.resources])
            left = looked_at(rest, examine_deployment, problems) + looked_at(manifest.resources, examine, problems)
    virtualenv.prune()
    count += done
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
    return count, not (left or problems)


def _remove(others: Sequence[Resource], apps: set[str], tell: Tell) -> int:
    count = 0
    for path in sorted(paths.APPS.glob("*.json")):
        if path.stem not in apps:
            tell({"event": "changing", "key": f"app {path.stem}", "verb": "remove"})
            slots.retire(path.stem)
            count += 1
    for resource in removals(others):
        tell({"event": "changing", "key": resource.key, "verb": "remove"})
        pending.owe(resource)
        resource.remove()
        forget()
        count += 1
    if count:
        from deploykit.agent import user_processes

        for resource in others:  # the services of an app that left have ended: what runs now, it has started by itself
            if resource.app and resource.app not in apps and resource.key == f"user {resource.app}":
                user_processes.end(resource.app)
    return count


def _change(resources: Sequence[Resource], tell: Tell) -> int:
    count = 0
    for index, resource in enumerate(resources):
        change = examine(resource)
        if change is None:
            continue
        if resource.together:
            several = [each for each in resources[index:] if type(each) is type(resource) and examine(each) is not None]
            tell({"event": "changing", "key": ", ".join(each.key for each in several), "verb": change.verb})
            for each in several:
                pending.owe(each)
            type(resource).change_together(several)
        else:
            several = [resource]
            tell({"event": "changing", "key": resource.key, "verb": change.verb})
            pending.owe(resource)
            try:
                observed = resource.observe()
            except NotYet as early:
                raise Failed(
                    f"{resource.key} cannot be looked at yet: {early}", todo="its recipe must come after what it needs"
                ) from None
            resource.change(observed)
        forget()
        for each in several:
            left = examine(each)
            if left is not None:
                names = ", ".join(f"{d.name} ({d.old!s} instead of {d.new!s})" for d in left.differences)
                raise Failed(f"{each.key} is not as wanted after it was changed", names)
        count += len(several)
    return count


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

    ends: list[Future[None]] = []

    def one(deployment: Deployment) -> Failed | None:
        began = time.monotonic()
        try:
            finish = transaction.deploy(
                deployment,
                listings.get(deployment.app),
                received,
                *_telling_of(tell),
            )
        except Failed as failure:
            return failure
        except (NotYet, OSError) as error:  # must not cost the other apps their deploy
            return Failed(f"app {deployment.app}: {error}", todo="mend that on the host, then deploy again")
        seconds = round(time.monotonic() - began, 2)
        tell({"event": "deployed", "app": deployment.app, "release": deployment.release, "seconds": seconds})
        ends.append(ending.submit(finish))
        return None

    with ThreadPoolExecutor(max_workers=2) as ending:
        with ThreadPoolExecutor(max_workers=_side_by_side()) as pool:
            outcomes = list(pool.map(one, due))
        for deployment, failure in zip(due, outcomes, strict=True):
            if failure is not None:
                tell({**trouble(failure), "app": deployment.app})
        yield outcomes
        for end in ends:
            try:
                end.result()
            except (Failed, NotYet, OSError) as error:  # what it left is cleared at the next deploy
                tell(trouble(error if isinstance(error, Failed) else Failed(str(error))))


def _telling_of(tell: Tell) -> tuple[transaction.Stage, transaction.Line]:
    return (
        lambda app, name: tell({"event": "stage", "app": app, "name": name}),
        lambda app, text: tell({"event": "output", "app": app, "line": text}),
    )


def _side_by_side() -> int:
    """Apps that are deployed at once: much of each is waiting, but each needs its Django in memory meanwhile."""
    now = facts.read()
    return min(now.processors + 1, max(2, now.memory // 1024), 6)
