"""Observe, plan, change, observe again. In the order of the manifest; there is no dependency graph."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, TypeVar

from deploykit.agent import early, facts, paths, pending, release, slots, transaction, virtualenv
from deploykit.agent.dataclass import dataclass
from deploykit.agent.deployment import Deployment, live, record, running
from deploykit.agent.plan import Change, Difference, compare, examine, removals
from deploykit.agent.process import forget, listen
from deploykit.agent.resource import Failed, NotYet, Resource, Secret, decoded, encode
from deploykit.agent.wire import Event

Tell = Callable[[Event], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Manifest:
    """What shall be on the host: resources in order, then the deployments. `only`: the apps whose code is meant."""

    resources: tuple[Resource, ...]
    deployments: tuple[Deployment, ...]
    only: frozenset[str] | None = None

    @property
    def chosen(self) -> tuple[Deployment, ...]:
        """The deployments this run is about."""
        return tuple(each for each in self.deployments if self.only is None or each.app in self.only)


@dataclass(frozen=True)
class Plan:
    """All that differs. `unwanted` are resources deploykit made and nobody wants now, `leaving` such apps."""

    changes: tuple[Change, ...]
    deployments: tuple[Change, ...]
    unwanted: tuple[Resource, ...]
    leaving: tuple[str, ...]
    owed: tuple[str, ...]
    kept: tuple[str, ...]  # data of apps that left: it stays
    problems: tuple[Failed, ...] = field(default=())

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.changes or self.deployments or self.unwanted or self.leaving or self.owed)

    def event(self) -> Event:
        """The plan as JSON data, secrets masked."""
        gone = [Change(f"app {app}", "remove", app=app) for app in self.leaving]
        gone += [
            Change(each.key, "remove", (), tuple(a.name for a in each.actions), each.app) for each in self.unwanted
        ]
        owed = [Change(name, "run") for name in self.owed]
        return {
            "event": "plan",
            "changes": [each.plain() for each in (*gone, *self.changes, *owed, *self.deployments)],
            "kept": list(self.kept),
        }


def owned() -> tuple[Resource, ...]:
    """The resources deploykit made on this host and has not removed since (their secrets are not remembered)."""
    found = []
    for data in paths.read_json(paths.MANIFEST, []):
        resource = decoded(data)  # None: there is nothing that we could still do with it
        if isinstance(resource, Resource):
            found.append(resource)
    return tuple(found)


def remember(resources: Sequence[Resource]) -> None:
    """Keeps what is ours on disk, without a secret in it."""
    paths.write_json(paths.MANIFEST, [_without_secrets(encode(each)) for each in resources])


def _without_secrets(data: Any) -> Any:
    if isinstance(data, dict):
        if set(data) == {"secret"}:
            return {"secret": ""}
        return {key: _without_secrets(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_without_secrets(each) for each in data]
    return data


def plan(manifest: Manifest) -> Plan:
    """Looks at everything and changes nothing."""
    forget()
    with _asked(manifest.resources):
        return _plan(manifest)


@contextlib.contextmanager
def _asked(resources: Sequence[Resource]) -> Iterator[None]:
    """Puts the questions to other programs at once, and side by side: their answers are there when they are needed."""

    def ask(resource: Resource) -> None:
        # Whatever goes wrong is told when the resource's own turn comes: it asks again.
        with contextlib.suppress(Exception):
            resource.observe()

    first = {type(each): each for each in resources if each.asks}
    threads = [threading.Thread(target=ask, args=(each,)) for each in first.values()]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join()  # before this process forks


def _plan(manifest: Manifest) -> Plan:
    problems: list[Failed] = []
    changes = _looked_at(manifest.resources, examine, problems)
    deployments = _looked_at(manifest.chosen, examine_deployment, problems)
    wanted = {each.key for each in manifest.resources}
    before = owned()
    apps = {each.app for each in manifest.deployments}
    leaving = tuple(path.stem for path in sorted(paths.APPS.glob("*.json")) if path.stem not in apps)
    kept = tuple(
        each.key
        for each in before
        if each.key not in wanted and not each.removable and each.app and each.app not in apps
    )
    return Plan(
        changes,
        deployments,
        tuple(removals(before, wanted)),
        leaving,
        tuple(action.name for action in pending.owed(wanted)),
        kept,
        tuple(problems),
    )


def _looked_at(things: Sequence[T], look: Callable[[T], Change | None], problems: list[Failed]) -> tuple[Change, ...]:
    """The changes that `things` need; what cannot be looked at goes to `problems`, all of it."""
    found = []
    for thing in things:
        try:
            found.append(look(thing))
        except Failed as failure:
            problems.append(failure)
    return tuple(change for change in found if change is not None)


def examine_deployment(deployment: Deployment) -> Change | None:
    """A deployment's part of the plan: what merely follows from the new release's name is left out."""
    try:
        observed, wanted = deployment.observe(), deployment.wanted()
    except NotYet:
        return Change(deployment.key, "create", (Difference("release", None, deployment.release),), (), deployment.app)
    if observed is None:
        first = Difference("release", None, f"{deployment.release} ({deployment.label})")
        return Change(deployment.key, "create", (first,), (f"start {deployment.app}",), deployment.app)
    differences = _telling(compare(wanted, observed))
    if not differences:
        return None
    slot = live(deployment.app) or "a"
    before = running(deployment.app, slot)
    if before != deployment.release:
        names = _renamings(deployment, before)
        differences = tuple(
            each
            for each in differences
            if each.name == "release"
            or (each.name not in ("live", "boot", "code") and not _same(each.old, each.new, names))
        )
    return Change(deployment.key, "change", differences, (f"restart {deployment.app}",), deployment.app)


def _telling(differences: tuple[Difference, ...]) -> tuple[Difference, ...]:
    """Without "the secret content differs" where single variables say so already."""
    names = [each.name for each in differences if isinstance(each.new, Secret)]

    def said(difference: Difference) -> bool:
        file = difference.name.removesuffix("content")
        hidden = isinstance(difference.new, Secret) and file != difference.name
        return hidden and any(name.startswith(file) and name != difference.name for name in names)

    return tuple(each for each in differences if not said(each))


def _renamings(deployment: Deployment, before: str) -> list[tuple[str, str]]:
    names = [(before, deployment.release)]
    for each in record(deployment.app)["releases"]:
        if each["release"] == before:
            old = decoded(each["deployment"])
            if isinstance(old, Deployment):
                names += [(old.venv.key, deployment.venv.key), (old.label, deployment.label)]
    return names


def _same(old: object, new: object, names: list[tuple[str, str]]) -> bool:
    old = old.reveal() if isinstance(old, Secret) else old
    new = new.reveal() if isinstance(new, Secret) else new
    if not (isinstance(old, str) and isinstance(new, str)):
        return False
    for before, after in names:
        if before:
            old = old.replace(before, after)
    return old == new


def apply(
    manifest: Manifest,
    listings: dict[str, release.Listing],
    received: Path,
    tell: Tell,
) -> tuple[int, bool]:
    """Makes it so. Returns (number of changes, whether all went well); failures were told."""
    count = 0
    ours = {each.key: each for each in owned()}
    apps = {each.app for each in manifest.deployments}
    remember([*({**ours, **{each.key: each for each in manifest.resources}}.values())])
    listen(lambda line: tell({"event": "progress", "line": line}))
    wanted = {each.key for each in manifest.resources}
    try:
        count += _remove(manifest, apps, tell)
        with early.begun(manifest.resources, manifest.chosen, listings, received, *_telling_of(tell)):
            count += _change(manifest.resources, tell)
        count += pending.settle_all(manifest.resources, lambda name: tell({"event": "action", "name": name}))
    except Failed as failure:
        tell(trouble(failure))
        return count, False
    kept = [each for key, each in ours.items() if not each.removable and key not in wanted]
    remember([*manifest.resources, *kept])
    problems: list[Failed] = []
    with _deployed(manifest.chosen, listings, received, tell) as failures:
        done = sum(each is None for each in failures)
        forget()  # and look again, while the replaced processes end
        with _asked(manifest.resources):
            left = _looked_at(manifest.resources, examine, problems)
    virtualenv.prune()
    count += done
    if done < len(failures):
        return count, False
    left += _looked_at(manifest.chosen, examine_deployment, problems)
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


def _remove(manifest: Manifest, apps: set[str], tell: Tell) -> int:
    count = 0
    for path in sorted(paths.APPS.glob("*.json")):
        if path.stem not in apps:
            tell({"event": "changing", "key": f"app {path.stem}", "verb": "remove"})
            slots.retire(path.stem)
            count += 1
    for resource in removals(owned(), {each.key for each in manifest.resources}):
        tell({"event": "changing", "key": resource.key, "verb": "remove"})
        pending.owe(resource)
        resource.remove()
        forget()
        count += 1
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
    deployments: Sequence[Deployment],
    listings: dict[str, release.Listing],
    received: Path,
    tell: Tell,
) -> Iterator[list[Failed | None]]:
    """Each app is a transaction of its own: one that fails leaves the others alone. A few at a time.

    The context is entered when all serve, with how each went; it is left when what they replaced has ended, too.
    """
    due = [each for each in deployments if examine_deployment(each) is not None]
    if not due:
        yield []
        return

    from concurrent.futures import Future, ThreadPoolExecutor  # not needed when there is nothing to do, slow to import

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


def trouble(failure: Failed) -> Event:
    """A failure as an event."""
    return {"event": "error", "what": failure.what, "detail": failure.detail, "todo": failure.todo}
