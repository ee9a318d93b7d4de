"""An app leaves the host: its processes and configuration; its data only when a person asks for that, after a dump."""

from __future__ import annotations

from pathlib import Path

from deploykit.agent import dump, engine, paths, pending, slots
from deploykit.agent.plan import removals
from deploykit.agent.process import forget
from deploykit.agent.resource import Failed, Resource


def leave(app: str, *, erase: bool, tell: engine.Tell) -> tuple[int, bool]:
    """Takes `app` off the host, whether deploykit.toml still has it or not. Touches nothing of anybody else.

    Without `erase` its database, media, data and secrets stay. Raises Failed when nothing of it is there.
    """
    ours = engine.owned()
    mine = [each for each in ours if each.app == app]
    rest = [each for each in ours if each.app != app]
    count = 0
    if slots.installed(app):
        tell({"event": "changing", "key": f"app {app}", "verb": "remove"})
        slots.retire(app)
        count += 1
    elif not mine:
        raise Failed(f"nothing of {app} is on the host")
    for resource in removals(mine, set()):
        tell({"event": "changing", "key": resource.key, "verb": "remove"})
        pending.owe(resource)
        resource.remove()
        forget()
        count += 1
    count += pending.settle_all(rest, lambda name: tell({"event": "action", "name": name}))
    data = [each for each in mine if not each.removable]
    if erase:
        count += _erase(app, data, tell)
    engine.remember([*rest, *([] if erase else data)])
    return count, True


def _erase(app: str, data: list[Resource], tell: engine.Tell) -> int:
    file = Path("/srv") / app / "data" / "db.sqlite3"
    kept = dump.take(app, "sqlite", str(file), "deleted") if file.exists() else None
    if kept is not None:
        tell({"event": "output", "app": app, "line": f"dumped to {kept}"})
    for resource in data[::-1]:
        tell({"event": "changing", "key": resource.key, "verb": "remove"})
        copy = resource.erase()
        if copy:
            tell({"event": "output", "app": app, "line": f"dumped to {copy}"})
        forget()
    (paths.SECRETS / f"{app}.json").unlink(missing_ok=True)
    for log in slots.LOGS.glob(f"{app}-[ab].log*"):
        log.unlink()
    return len(data)
