"""An app leaves the host: its processes and configuration; its data only when a person asks for that, after a dump."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from deploykit.agent import dump, engine, pending, slots, store
from deploykit.agent.plan import removals
from deploykit.agent.process import forget
from deploykit.agent.resource import Resource
from deploykit.model import layout


def leave(app: str, *, erase: bool, tell: engine.Tell) -> tuple[int, bool]:
    """Takes `app` off the host, whether deploykit.toml still has it or not. Touches nothing of anybody else.

    Without `erase` its database, media, data and secrets stay. Tells what was dumped. That nothing of it is there is no
    error: another run, that was cut short, may have done it.
    """
    ours = engine.owned()
    mine = [each for each in ours if each.app == app]
    rest = [each for each in ours if each.app != app]
    count = 0
    if slots.installed(app):
        tell({"event": "changing", "key": f"app {app}", "verb": "remove"})
        slots.retire(app)
        count += 1
    for resource in removals(mine):
        tell({"event": "changing", "key": resource.key, "verb": "remove"})
        pending.owe(resource)
        resource.remove()
        forget()
        count += 1
    count += pending.settle_all(rest, lambda name: tell({"event": "action", "name": name}))
    data = [each for each in mine if not each.removable]
    dumps = _erase(app, data, tell) if erase else []
    engine.remember([*rest, *([] if erase else data)])
    tell({"event": "left", "dumps": dumps, "found": bool(mine or count)})
    return count + (len(data) if erase else 0), True


def _erase(app: str, data: list[Resource], tell: engine.Tell) -> list[str]:
    dumps = []
    home = layout.home(app)
    for file in (*_databases(home / "data"), *_databases(home / "persist")):
        dumps.append(str(dump.take(app, "sqlite", str(file), f"deleted-{file.stem}")))
        tell({"event": "output", "app": app, "line": f"dumped to {dumps[-1]}"})
    for resource in data[::-1]:
        tell({"event": "changing", "key": resource.key, "verb": "remove"})
        copy = resource.erase()
        if copy:
            dumps.append(copy)
            tell({"event": "output", "app": app, "line": f"dumped to {copy}"})
        forget()
    store.forget(app)
    for log in [each for form in (f"{app}-[ab].log*", f"{app}-[ab].*.log*") for each in layout.logs().glob(form)]:
        log.unlink()
    return dumps


def _databases(folder: Path) -> list[Path]:
    """The SQLite files below a folder, by how they begin (sqlite.org/fileformat.html)."""
    found = []
    for path in sorted(folder.rglob("*")):
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue  # a link, or gone meanwhile
        try:
            if stat.S_ISREG(os.fstat(handle).st_mode) and os.read(handle, 16) == b"SQLite format 3\0":
                found.append(path)
        finally:
            os.close(handle)
    return found
