"""An app's configuration files: the project's own templates, filled in with the app's environment and references.

A template must not see a secret, for some are known to the host alone. It gets a stand-in, which prints as a mark that
nobody can guess; where the marks are in the finished text, the host puts the values.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import replace

from deploykit.agent.configfile import ConfigurationFile
from deploykit.agent.resource import Failed, HostSecret, Joined, Render, Resource, Secret
from deploykit.agent.resources import Directory
from deploykit.agent.secret import Quoted, quote
from deploykit.agent.values import App, Value

#: Around each mark: characters that no program writes, and that any filter but ours would change.
_OPEN, _CLOSE = "\ue0d0", "\ue0d1"


def folder(app: App, slot: str) -> str:
    """Where a slot's configuration files are: `${files.dir}`."""
    return f"/etc/deploykit/{app.name}.{slot}.d"


def on_pythonpath(app: App) -> bool:
    """Whether Python shall find one of them as a module."""
    return any(each.pythonpath for each in app.files)


def files(
    app: App, slot: str, env: Mapping[str, Value], names: Mapping[str, Value], render: Render
) -> Iterator[Resource]:
    """The folder of a slot's configuration files, and the files in it."""
    if not app.files:
        return
    place = folder(app, slot)
    yield Directory(place, group=app.user, mode=0o750, app=app.name)
    links = {file.name: file.link for file in app.files}
    for file, content in contents(app, env, names, render):
        yield ConfigurationFile(path=f"{place}/{file}", content=content, link=links[file], app=app.name)


def contents(
    app: App, env: Mapping[str, Value], names: Mapping[str, Value], render: Render
) -> Iterator[tuple[str, str | Secret | Joined]]:
    """(name, content) of each configuration file. Raises Failed for a template that makes something of a secret."""
    # What has secrets in it is left out of the app: `env` and `ref` have them, as stand-ins.
    bare = replace(app, env={}, database=replace(app.database, url=None), site=replace(app.site, users=()))
    for file in app.files:
        hiding = Hiding()
        text = render(file.template, app=bare, env=hiding.all(env), ref=hiding.all(names))
        yield file.name, hiding.found(text, f"the template {file.template} of app {app.name}")


def told(content: str | Secret | Joined) -> str:
    """What of a content may decide a release's name: all but its secrets."""
    if isinstance(content, Joined):
        return "".join(part if isinstance(part, str) else "\0" for part in content.parts)
    return content if isinstance(content, str) else "\0"


class Hidden:
    """What a template gets for a secret. It can be put into the text, as it is or quoted, and nothing else."""

    def __init__(self, hiding: Hiding, value: Secret | HostSecret | Joined) -> None:
        self._hiding, self._value = hiding, value

    def __str__(self) -> str:
        return self._hiding.mark(self._value)

    def __repr__(self) -> str:
        return self.quoted("python")

    def quoted(self, how: str) -> str:
        """The mark of the value as `quote(how, ...)` writes it."""
        return self._hiding.mark(Quoted(how, self._value))

    def __eq__(self, other: object) -> bool:
        raise TypeError("a secret cannot be compared: some are known to the host alone")

    __hash__ = None  # type: ignore[assignment]


class Hiding:
    """The secrets of one text, each with its mark."""

    def __init__(self) -> None:
        self._core = secrets.token_hex(8)
        self._parts: list[Secret | HostSecret | Joined | Quoted] = []

    def all(self, values: Mapping[str, Value]) -> dict[str, object]:
        """The values by name, with stand-ins for those that a template must not see."""
        return {name: value if isinstance(value, str) else Hidden(self, value) for name, value in values.items()}

    def mark(self, part: Secret | HostSecret | Joined | Quoted) -> str:
        """What stands for a secret in the text."""
        self._parts.append(part)
        return f"{_OPEN}{self._core}{len(self._parts) - 1}{_CLOSE}"

    def found(self, text: str, where: str) -> str | Secret | Joined:
        """The text with its secrets in their places: plain, or what hides itself. Raises Failed."""
        pieces = re.split(f"{_OPEN}{self._core}(\\d+){_CLOSE}", text)
        rest = "".join(pieces[::2])
        if self._parts and (self._core in rest.lower() or _OPEN in rest or _CLOSE in rest):
            raise Failed(
                f"{where} changes a secret, which only the host knows",
                todo="put it in as it is, or by the filters json, python or urlencode, without another filter",
            )
        parts: list[str | Secret | HostSecret | Quoted] = []
        for index, piece in enumerate(pieces):
            part = self._parts[int(piece)] if index % 2 else piece
            parts += _known(part) if not isinstance(part, Joined) else part.parts
        parts = [part for part in parts if part != ""]
        if all(isinstance(part, str) for part in parts):
            return "".join(map(str, parts))
        # Not one secret of it all: the host would take each of its lines out of what it tells.
        return parts[0] if len(parts) == 1 and isinstance(parts[0], Secret) else Joined(tuple(parts))


def _known(part: str | Secret | HostSecret | Quoted) -> list[str | Secret | HostSecret | Quoted]:
    """What is known here already is quoted here."""
    if isinstance(part, Quoted) and isinstance(part.value, Secret):
        return [Secret(quote(part.how, part.value.reveal()))]
    return [part]
