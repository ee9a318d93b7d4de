"""The host's own secrets: one file an app, root's alone. What is made here never leaves the host."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path

from deploykit.agent import paths, secret
from deploykit.agent.resource import Failed, HostSecret, Joined, Secret
from deploykit.agent.secret import Quoted, quote

_making = threading.Lock()  # releases are built while files are written: both may want a new secret of one app


def read(app: str) -> dict[str, Secret]:
    """All secrets of an app by name."""
    kept: dict[str, str] = paths.read_json(paths.SECRETS / f"{app}.json", {})
    secret.known.update(kept.values())
    return {name: Secret(value) for name, value in kept.items()}


def write(app: str, name: str, value: Secret | None) -> None:
    """Sets a secret; None takes it away."""
    kept: dict[str, str] = paths.read_json(paths.SECRETS / f"{app}.json", {})
    if value is None:
        kept.pop(name, None)
    else:
        kept[name] = value.reveal()
        secret.known.add(kept[name])
    paths.write_json(paths.SECRETS / f"{app}.json", kept)
    at = {each: when for each, when in times(app).items() if each in kept and each != name}
    paths.write_json(_times(app), at if value is None else {**at, name: round(time.time(), 1)})


def times(app: str) -> dict[str, float]:
    """When each secret was set or made, in epoch seconds."""
    found: dict[str, float] = paths.read_json(_times(app), {})
    return found


def forget(app: str) -> None:
    """All of an app's secrets are gone."""
    for place in (paths.SECRETS / f"{app}.json", _times(app)):
        place.unlink(missing_ok=True)


def _times(app: str) -> Path:
    return paths.SECRETS / f"{app}.times.json"  # no app's name has a dot


def look(app: str, wanted: HostSecret) -> Secret | None:
    """The value, or None when it will be made at the next deploy. Raises Failed when only a person can give it."""
    kept: Mapping[str, str] = paths.known_json(paths.SECRETS / f"{app}.json", {})
    found = kept.get(wanted.name)
    if found is None and not wanted.make:
        raise Failed(
            f"the secret {wanted.name} of app {app} is not on the host",
            todo=f"give it with `fab secrets set --app {app} --name {wanted.name}`",
        )
    if found is None:
        return None
    secret.known.add(found)
    return Secret(found)


def ensure(app: str, wanted: HostSecret) -> Secret:
    """The value, made now when there is none."""
    with _making:
        found = look(app, wanted)
        if found is None:
            import secrets
            import string

            alphabet = string.ascii_letters + string.digits + "-_"
            found = Secret("".join(secrets.choice(alphabet) for _ in range(wanted.make)))
            write(app, wanted.name, found)
    return found


def plain(app: str, value: str | Secret | HostSecret | Joined | Quoted, *, make: bool) -> str:
    """A value in the clear. With `make`, a secret that the host shall invent is made now. Raises Failed."""
    if isinstance(value, Quoted):
        return quote(value.how, plain(app, value.value, make=make))
    if isinstance(value, Joined):
        return "".join(plain(app, each, make=make) for each in value.parts)
    if isinstance(value, HostSecret):
        if make:
            return ensure(app, value).reveal()
        found = look(app, value)
        return found.reveal() if found else "(made on the host at deploy)"
    return value.reveal() if isinstance(value, Secret) else value
