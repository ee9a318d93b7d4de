"""Configuration and recipes make a manifest: pure, no host needed. Data that travels as JSON."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

from deploykit.agent.dataclass import dataclass
from deploykit.agent.deployment import Deployment
from deploykit.agent.resource import Action, Conflict, Failed, Note, Resource, encode
from deploykit.agent.values import Facts, Host
from deploykit.catalogue import recipes
from deploykit.errors import DeploykitError
from deploykit.rendering import renderer


@dataclass(frozen=True)
class Manifest:
    """What one host shall have, in order. `notes` are for the person: what does not fit, what was sized how."""

    resources: tuple[Resource, ...]
    deployments: tuple[Deployment, ...]
    notes: tuple[Note, ...] = ()

    @functools.cached_property
    def data(self) -> dict[str, Any]:
        """As it is sent to the agent (secrets in the clear: standard input only)."""
        return {
            "resources": [encode(each) for each in self.resources],
            "deployments": [encode(each) for each in self.deployments],
        }

    @functools.cached_property
    def text(self) -> str:
        """The data as JSON, and always the same for equal manifests."""
        return json.dumps(self.data, separators=(",", ":"))


def build(host: Host, facts: Facts, project: Path) -> Manifest:
    """The manifest of a host. Raises Conflict for one key with two values, DeploykitError for what cannot be."""
    render = renderer(project)
    origin: dict[str, str] = {}
    found: dict[str, Resource] = {}
    notes: list[Note] = []
    for name, recipe, say in recipes(host, project):
        try:
            for each in recipe(host, facts, render):
                _add(each, name, found, origin)
            if say is not None:
                notes += say(host, facts)
        except Failed as failure:
            raise DeploykitError(failure.what, f"host {host.name}", failure.todo or failure.detail) from None
        except Conflict as conflict:
            raise DeploykitError(
                f"{conflict.key} is wanted in two ways",
                f"recipes {conflict.first} and {conflict.second}",
                "one of them must let go of it",
            ) from None
    everything = list(found.values())
    return Manifest(
        tuple(each for each in everything if not isinstance(each, Deployment)),
        tuple(each for each in everything if isinstance(each, Deployment)),
        tuple(notes),
    )


def _add(resource: Resource, recipe: str, found: dict[str, Resource], origin: dict[str, str]) -> None:
    known = found.get(resource.key)
    if known is None:
        found[resource.key] = resource
        origin[resource.key] = recipe
        return
    # What two recipes want alike is one thing; the actions of both follow from it.
    if dataclasses.replace(known, actions=()) != dataclasses.replace(resource, actions=()):
        raise Conflict(resource.key, origin[resource.key], recipe)
    actions: dict[str, Action] = {action.name: action for action in (*known.actions, *resource.actions)}
    found[resource.key] = dataclasses.replace(known, actions=tuple(actions.values()))
