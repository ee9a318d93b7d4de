"""An app leaves the host: its processes and configuration; its data only when a person asks for that, after a dump."""

from __future__ import annotations

import functools
import pwd
from pathlib import Path

from deploykit.agent import dump, engine, pending, slots, store, trees, user_processes
from deploykit.agent.attempt import attempt
from deploykit.agent.logs import NGINX
from deploykit.agent.plan import removals
from deploykit.agent.process import forget
from deploykit.agent.resource import Failed, Resource
from deploykit.model import layout

_MOST = 1000  # SQLite files of one app that are dumped


def leave(app: str, *, erase: bool, tell: engine.Tell) -> tuple[int, bool]:
    """Takes `app` off the host, whether deploykit.toml still has it or not. Touches nothing of anybody else.

    Without `erase` its database, media, data and secrets stay. Tells what was dumped. That nothing of it is there is no
    error: another run, that was cut short, may have done it.
    """
    ours = engine.owned()
    mine = [each for each in ours if each.app == app]
    rest = [each for each in ours if each.app != app]
    count = 0
    failures: list[Failed] = []
    stuck: list[Resource] = []  # what could not be removed stays ours, for the next try
    if slots.installed(app):
        tell({"event": "changing", "key": f"app {app}", "verb": "remove"})
        slots.retire(app)
        count += 1
    for resource in removals(mine):
        tell({"event": "changing", "key": resource.key, "verb": "remove"})
        failure = attempt(functools.partial(_remove, resource), resource.key, app)
        if failure is None:
            count += 1
        else:
            failures.append(failure)
            stuck.append(resource)
    if any(each.key == f"user {app}" for each in mine):
        user_processes.end(app)  # its services have ended: what runs now, it has started by itself
    count += pending.settle_all(rest, lambda name: tell({"event": "action", "name": name}), failures)
    data = [each for each in mine if not each.removable]
    dumps = _erase(app, data, tell) if erase and not failures else []
    gone = erase and not failures
    engine.remember([*rest, *([] if gone else [*data, *stuck])])
    for each in failures:
        tell(engine.trouble(each))
    tell({"event": "left", "dumps": dumps, "found": bool(mine or count)})
    return count + (len(data) if gone else 0), not failures


def _remove(resource: Resource) -> None:
    pending.owe(resource)
    resource.remove()
    forget()


def _erase(app: str, data: list[Resource], tell: engine.Tell) -> list[str]:
    dumps = []
    home = layout.home(app)
    files = _databases(app, home / "data", home / "persist")
    if len(files) > _MOST:
        line = f"it has more than {_MOST} SQLite files: those after the first {_MOST} are not dumped"
        tell({"event": "output", "app": app, "line": line})
    for file in files[:_MOST]:
        place = dump.take(app, "sqlite", file, f"deleted-{dump.plain_name(file)}", whole=False)
        if place is not None:
            dumps.append(str(place))
            tell({"event": "output", "app": app, "line": f"dumped to {place}"})
    for resource in data[::-1]:
        tell({"event": "changing", "key": resource.key, "verb": "remove"})
        copy = resource.erase()
        if copy:
            dumps.append(copy)
            tell({"event": "output", "app": app, "line": f"dumped to {copy}"})
        forget()
    store.forget(app)
    for log in _logs(app):
        log.unlink(missing_ok=True)
    trees.remove(layout.run(app))  # its number is the next new app's
    return dumps


def _logs(app: str) -> list[Path]:
    """What its processes have printed, and who visited it."""
    printed = [each for form in (f"{app}-[ab].log*", f"{app}-[ab].*.log*") for each in layout.logs().glob(form)]
    return [*printed, *(each for kind in ("access", "error") for each in NGINX.glob(f"{app}.{kind}.log*"))]


def _databases(app: str, *folders: Path) -> list[str]:
    try:
        pwd.getpwnam(app)
    except KeyError:
        return []  # a run before this one got as far as its user, and had dumped all
    return dump.sqlite_files(app, folders)
