"""How an app's release is built: its hooks, what outlives the release, what nginx serves of it, and what names it."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import replace

from deploykit.agent.deployment import BUILDING
from deploykit.agent.resource import Render, Resource
from deploykit.agent.resources import DataDirectory
from deploykit.agent.values import App, Build, Value
from deploykit.recipes import files
from deploykit.recipes.programs import command


def build(app: App, names: Mapping[str, Value]) -> Build:
    """The build with the references of its hooks replaced."""
    hooks = tuple((step, command(app, f"at {step}", text, names)) for step, text in app.build.hooks)
    return replace(app.build, hooks=hooks)


def public(app: App) -> tuple[str, ...]:
    """The folders of the built code that nginx serves: those of its locations that do not persist."""
    wanted = {folder for location in app.site.locations for folder in location.folders if not persists(app, folder)}
    return tuple(sorted(each for each in wanted if not any(each.startswith(f"{other}/") for other in wanted)))


def persists(app: App, folder: str) -> bool:
    """Whether a folder of a location is one that persists, or is inside one."""
    return any(path.endswith("/") and f"{folder}/".startswith(path) for path in app.build.persist)


def decides(app: App, env: Mapping[str, Value], names: Mapping[str, Value], render: Render) -> tuple[str, ...]:
    """What of an app makes another release of it, beside code and requirements; () when there is nothing of it.

    A build reads the environment and the configuration files, so it is made anew when they change; but a secret is no
    matter of the build's. `env` and `names` must not depend on the release.
    """
    parts: list[object] = []
    if app.build != Build():
        parts += [app.build.hooks, app.build.collectstatic, app.build.migrate, app.build.persist]
    if any(app.build.commands(step) for step in BUILDING):
        parts.append({name: value for name, value in env.items() if isinstance(value, str)})
    if app.files:
        parts += [[name, files.told(content)] for name, content in files.contents(app, env, names, render)]
        parts += [["link", file.name, file.link] for file in app.files if file.link]
    if folders := public(app):
        parts.append(folders)
    return (json.dumps(parts, sort_keys=True),) if parts else ()


def persistent(app: App, www: str) -> Iterator[Resource]:
    """The places of what persists. Where nginx serves a folder, its group hands on to all that the app puts there."""
    if not app.build.persist:
        return
    top = f"{app.home}/persist"
    folders = {path.rstrip("/") for path in app.build.persist if path.endswith("/")}
    # The folder of a file is the app's, too: it may make the file, or another one to put in its place.
    writable = {posixpath.dirname(path) for path in app.build.persist if not path.endswith("/")}
    above = {""} | {parent for path in app.build.persist for parent in _above(path.rstrip("/"))}
    for path in sorted(above | folders):
        place = f"{top}/{path}".rstrip("/")
        if path in folders:
            served = any(
                f"{folder}/".startswith(f"{path}/") for location in app.site.locations for folder in location.folders
            )
            group, mode = (www, 0o2750) if served else (app.user, 0o750)
            yield DataDirectory(place, app.user, group, mode, app=app.name)
        else:  # who knows a path may pass through; nginx must, on its way to a folder that it serves
            yield DataDirectory(place, app.user if path in writable else "root", mode=0o711, app=app.name)


def _above(path: str) -> Iterator[str]:
    while path := posixpath.dirname(path):
        yield path
