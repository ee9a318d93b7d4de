"""The good releases of an app: which are kept, and how one of them is brought back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from deploykit.agent import paths, secret, trees
from deploykit.agent.deployment import Deployment, condition, live, record, running
from deploykit.agent.process import forget
from deploykit.agent.resource import Failed, decoded, encode


def remember(deployment: Deployment, *, newest: bool = True) -> None:
    """Keeps the release among the good ones, with all that is needed to bring it back.

    A rollback keeps its place in their order: so the next one goes further back, and not to what was left.
    """
    state = record(deployment.app)
    names = [each["release"] for each in state["releases"]]
    kept = [each for each in state["releases"] if each["release"] != deployment.release]
    place = len(kept) if newest or deployment.release not in names else names.index(deployment.release)
    kept.insert(
        place,
        {
            "release": deployment.release,
            "label": deployment.label,
            "at": time.time(),
            "venv": deployment.venv.key,
            "deployment": encode(deployment),
        },
    )
    state["releases"] = kept
    paths.write_json(paths.APPS / f"{deployment.app}.json", state)


def restore(app: str, good: Sequence[dict[str, Any]]) -> None:
    """Keeps `good`, as they were before a deploy that failed, and not what it may have added."""
    state = record(app)
    if state["releases"] != list(good):
        paths.write_json(paths.APPS / f"{app}.json", {**state, "releases": list(good)})


def prune(deployment: Deployment) -> None:
    """Drops what is older than the last good releases: their folders, and virtualenvs that none of them uses."""
    app = deployment.app
    state = record(app)
    busy = {each["release"] for each in state["releases"][-max(deployment.keep, 2) :]} | set(state["slots"].values())
    keep = [each for each in state["releases"] if each["release"] in busy]
    venvs = {each["venv"] for each in keep} | {deployment.venv.key}
    for folder in (deployment.home / "releases").glob("*"):
        if folder.name not in busy:
            trees.remove(folder, check=False)
    for folder in (deployment.home / "venvs").glob("*"):
        if folder.name not in venvs:
            trees.remove(folder, check=False)
    previous = deployment.home / "previous"
    if previous.is_symlink() and not previous.exists():
        previous.unlink()
    if len(keep) != len(state["releases"]):
        state["releases"] = keep
        paths.write_json(paths.APPS / f"{app}.json", state)
    forget()


def _stored(entry: dict[str, Any]) -> Deployment:
    deployment = decoded(entry["deployment"])
    if not isinstance(deployment, Deployment):
        raise Failed(
            f"the release {entry['release']} was made by another version of deploykit and cannot be brought back",
            todo="deploy the source it was made from",
        )
    return deployment


def current(app: str) -> Deployment:
    """The live release as it was deployed. Raises Failed when there is none, or it is not as it was."""
    slot = live(app)
    name = running(app, slot) if slot else ""
    found = [each for each in record(app)["releases"] if each["release"] == name]
    if not found:
        raise Failed(f"{app} is not deployed on this host", todo="`fab deploy` brings it")
    if (now := condition(app, name)) != "as released":
        raise Failed(f"the live release of {app} is not as it was deployed: {now}", todo="`fab deploy` puts it right")
    return _stored(found[-1])


def used(app: str) -> frozenset[str]:
    """The secrets of the host that the live release has in its environment or files."""
    slot = live(app)
    name = running(app, slot) if slot else ""
    found = [decoded(each["deployment"]) for each in record(app)["releases"] if each["release"] == name]
    return frozenset(secret.names(found[-1].slot_a)) if found and isinstance(found[-1], Deployment) else frozenset()


def earlier(app: str, release_id: str = "") -> Deployment:
    """The good release before the live one, or the one named. Raises Failed when there is none."""
    state = record(app)
    current = live(app)
    now = running(app, current) if current else ""
    choices = [each for each in state["releases"] if each["release"] != now]
    if release_id:
        choices = [each for each in choices if each["release"].startswith(release_id)]
    else:
        index = next((i for i, each in enumerate(state["releases"]) if each["release"] == now), len(state["releases"]))
        choices = state["releases"][:index]
    choices = [each for each in choices if condition(app, each["release"]) == "as released"]
    if not choices:
        named = f" that begins with {release_id}" if release_id else " before the live one"
        have = ", ".join(each["release"] for each in state["releases"]) or "none"
        raise Failed(f"{app} has no good release{named}", f"kept: {have}", "`fab status` lists them")
    return _stored(choices[-1])
