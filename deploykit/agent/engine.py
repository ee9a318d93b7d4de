"""Looks at a host and says what would have to change; changes nothing.

Changing is `applying`, which brings much more with it: nothing that it needs is loaded on a host with nothing to do.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import field
from typing import Any, TypeVar

from deploykit.agent import paths, pending
from deploykit.agent.attempt import attempt
from deploykit.agent.dataclass import dataclass
from deploykit.agent.deployment import Deployment, live, record, running
from deploykit.agent.plan import Change, Difference, compare, examine, removals
from deploykit.agent.process import abandon, forget
from deploykit.agent.resource import Failed, NotYet, Resource, Secret, decoded, encode
from deploykit.agent.wire import Event

Tell = Callable[[Event], None]
T = TypeVar("T", bound=Resource)


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
    def hopeless(self) -> bool:
        """Whether the host itself cannot be looked at, so that nothing may be changed."""
        return any(not each.app for each in self.problems)

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


def owned(but: Collection[str] = ()) -> tuple[Resource, ...]:
    """The resources deploykit made on this host and has not removed since (their secrets are not remembered).

    `but`: keys of those that are not asked for.
    """
    kept = paths.read_json(paths.MANIFEST, {})
    if isinstance(kept, list):  # an earlier deploykit's: without their keys
        kept = {str(number): data for number, data in enumerate(kept)}
    # None: there is nothing that we could still do with it
    found = (decoded(data) for key, data in kept.items() if key not in but)
    return tuple(each for each in found if isinstance(each, Resource) and each.key not in but)


def remember(resources: Sequence[Resource]) -> None:
    """Keeps what is ours on disk, without a secret in it."""
    paths.update_json(paths.MANIFEST, {each.key: _without_secrets(encode(each)) for each in resources})


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
    with asked(manifest.resources):
        return _plan(manifest)


@contextlib.contextmanager
def asked(resources: Sequence[Resource]) -> Iterator[None]:
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
        abandon()


def _plan(manifest: Manifest) -> Plan:
    late: list[Failed] = []
    deployments = looked_at(manifest.chosen, examine_deployment, late)  # first: meanwhile, psql and systemctl answer
    problems: list[Failed] = []
    changes = looked_at(manifest.resources, examine, problems)
    wanted = {each.key for each in manifest.resources}
    before = owned(but=wanted)
    apps = {each.app for each in manifest.deployments}
    leaving = tuple(path.stem for path in sorted(paths.APPS.glob("*.json")) if path.stem not in apps)
    kept = tuple(each.key for each in before if not each.removable and each.app and each.app not in apps)
    return Plan(
        changes,
        deployments,
        tuple(removals(before)),
        leaving,
        tuple(action.name for action in pending.owed(wanted)),
        kept,
        (*problems, *late),
    )


def looked_at(things: Sequence[T], look: Callable[[T], Change | None], problems: list[Failed]) -> tuple[Change, ...]:
    """The changes that `things` need; what cannot be looked at goes to `problems`, all of it."""
    found = []
    for thing in things:
        seen = attempt(lambda thing=thing: look(thing), thing.key, thing.app)  # type: ignore[misc]
        if isinstance(seen, Failed):
            problems.append(seen)
        elif seen is not None:
            found.append(seen)
    return tuple(found)


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


def trouble(failure: Failed) -> Event:
    """A failure as an event."""
    event = {"event": "error", "what": failure.what, "detail": failure.detail, "todo": failure.todo}
    return {**event, "app": failure.app} if failure.app else event
