"""Actions that changes still owe: written before the change, gone when done, so that no crash loses a reload.

With an action that has a check, the files changed for it are remembered as they were: if the check says no, they are
put back, and the running service never sees the bad ones.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from deploykit.agent import paths
from deploykit.agent.process import forget, run, tail, titled
from deploykit.agent.resource import Action, Failed, Resource, decoded, encode

#: Seconds that processes may take to make way for those that replace them.
PATIENCE = 20.0


def _place(action: Action) -> Path:
    import hashlib  # brings OpenSSL along: who only looks needs none of it

    name = hashlib.sha256(action.name.encode()).hexdigest()[:16]
    return paths.PENDING / f"{name}.json"


def owe(resource: Resource) -> None:
    """Notes, before `resource` is changed, what must follow, and how its file looked."""
    path = getattr(resource, "path", "")
    for action in resource.actions:
        place = _place(action)
        record: dict[str, Any] = paths.read_json(place, {"before": {}})
        record["action"] = encode(action)
        record.setdefault("since", time.time_ns())
        if action.check and path and path not in record["before"]:
            record["before"][path] = _snapshot(Path(path))
            record.setdefault("apps", {})[path] = resource.app
        paths.write_json(place, record)


def owed(wanted: Collection[str]) -> Iterator[Action]:
    """The actions that are due, the first owed first (systemd rereads its units before a restart).

    `wanted` are the keys of the manifest's resources. One that is about a resource which has left (restart a service
    that is gone) is due no more.
    """
    records = [paths.read_json(place, {}) for place in paths.PENDING.glob("*.json")]
    for record in sorted(records, key=lambda each: int(each.get("since", 0))):
        action = decoded(record.get("action"))
        if isinstance(action, Action) and (not action.needs or action.needs in wanted):
            yield action


def settle_all(resources: Sequence[Resource], tell: Callable[[str], None], failures: list[Failed]) -> int:
    """Does all that is owed, and returns how much that was. `resources` are those that stay. Raises Failed.

    What only an app's own files prevent is done without them, and goes to `failures` as that app's.

    What no resource asks for any more (the recipe has left) is tried, for its sake (nginx lets go of a site), but it
    cannot fail anybody: what it is about may be gone, too.
    """
    wanted = {each.key for each in resources}
    asked = {action.name for each in resources for action in each.actions}
    due = list(owed(wanted))
    for place in set(paths.PENDING.glob("*.json")) - {_place(action) for action in due}:
        place.unlink()
    for action in due:
        if action.name in asked:
            settle(action, tell, failures)
        else:
            _try(action, tell)
        forget()
    return len(due)


def _try(action: Action, tell: Callable[[str], None]) -> None:
    if not action.check or _says_yes(action.check):
        tell(action.name)
        for command in action.commands:
            with contextlib.suppress(Failed):  # the program itself may be gone
                run(command, check=False)
    _place(action).unlink(missing_ok=True)


def _says_yes(check: tuple[str, ...]) -> bool:
    try:
        return run(check, check=False).returncode == 0
    except Failed:
        return False


def settle(action: Action, tell: Callable[[str], None], failures: list[Failed]) -> None:
    """Checks and does one action, then forgets it. Raises Failed, with the files put back when the check said no.

    Where the files of one app are the reason, only these are put back: it is that app's failure, in `failures`.
    """
    place = _place(action)
    if action.check:
        record: dict[str, Any] = paths.read_json(place, {"before": {}})
        changed: dict[str, Any] = dict(record["before"])
        apps: dict[str, str] = record.get("apps", {})
        while (outcome := run(action.check, check=False)).returncode != 0:
            said = outcome.stderr or outcome.stdout
            app = _blamed(said, changed, apps)
            mine = [path for path in changed if not app or apps.get(path) == app]
            meant = _line(said, mine)
            for path in mine:
                _restore(Path(path), changed.pop(path))
            put_back = ", ".join(sorted(mine))
            failure = Failed(
                f"`{' '.join(action.check)}` refuses the new configuration"
                + (f" of {app}; its old one is back" if app else "; the old one is back and still in use"),
                tail(said) + meant + (f"\nput back: {put_back}" if put_back else ""),
                "correct what the message names (a template, a recipe, or the setting behind it) and deploy again",
                app,
            )
            if not app:
                place.unlink(missing_ok=True)
                raise failure
            failures.append(failure)
    before = titled(action.replaces) if action.replaces else frozenset()
    for command in action.commands:
        tell(action.name)
        run(command)
    if before:
        _until_replaced(action, before)
    place.unlink(missing_ok=True)


def _until_replaced(action: Action, before: frozenset[int]) -> None:
    deadline = time.monotonic() + PATIENCE
    while left := before & titled(action.replaces):
        if time.monotonic() > deadline:
            numbers = ", ".join(map(str, sorted(left)))
            raise Failed(
                f"{action.name}: after {PATIENCE:g} s the processes from before still work with what they had",
                f"{action.replaces}: {numbers}",
                "the log of that service says why it did not take the new configuration; then deploy again",
            )
        time.sleep(0.02)


def _blamed(said: str, changed: Collection[str], apps: dict[str, str]) -> str:
    """The app whose changed file a complaint names, or the only one that has changed any; "" when it is neither."""
    for path, _ in re.findall(r"(/[^\s:]+):(\d+)", said):
        # a site is complained of by the name of the link that enables it
        for name in (path, os.path.realpath(path)):
            if name in changed and apps.get(name):
                return apps[name]
    owners = {apps.get(path, "") for path in changed}
    return owners.pop() if len(owners) == 1 else ""


def _line(said: str, changed: Collection[str]) -> str:
    """The line that a complaint such as "unknown directive in /etc/x.conf:7" is about: it is gone once it was put back.

    Only of a file that was changed for this action, and that anybody may read.
    """
    for path, number in re.findall(r"(/[^\s:]+):(\d+)", said):
        file = Path(path).resolve()
        try:
            if str(file) in changed and file.stat().st_mode & 0o004:
                return f"\nline {number} of {file}: {file.read_text().splitlines()[int(number) - 1].strip()}"
        except (OSError, ValueError, IndexError):
            continue
    return ""


def _snapshot(path: Path) -> dict[str, Any] | None:
    import base64

    try:
        if path.is_symlink():
            return {"link": os.readlink(path)}
        status = path.stat()
        if not path.is_file():
            return {"other": True}
        return {
            "content": base64.b64encode(path.read_bytes()).decode(),
            "mode": status.st_mode & 0o7777,
            "owner": status.st_uid,
            "group": status.st_gid,
        }
    except FileNotFoundError:
        return None


def _restore(path: Path, before: dict[str, Any] | None) -> None:
    import base64

    if before is None:
        path.unlink(missing_ok=True)
    elif "link" in before:
        path.unlink(missing_ok=True)
        path.symlink_to(before["link"])
    elif "content" in before:
        paths.write(path, base64.b64decode(before["content"]), mode=before["mode"])
        os.chown(path, before["owner"], before["group"])
