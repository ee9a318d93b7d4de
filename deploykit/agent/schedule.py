"""How an app's schedules are: what systemd knows of their timers."""

from __future__ import annotations

from typing import Any

from deploykit.agent.process import run

_TIMER = ("Id", "NextElapseUSecRealtime", "LastTriggerUSec", "ActiveState")
_SERVICE = ("Id", "ActiveState", "Result", "ExecMainStatus", "ExecMainStartTimestamp", "ExecMainExitTimestamp")


def read(app: str) -> list[dict[str, Any]]:
    """Each schedule: `name`, `next` and `last` as systemd writes times ("" is never), `running`, `result`, `status`.

    `result` is systemd's word: "success", "exit-code", "timeout", "signal"; `status` the command's own.
    """
    pattern = f"deploykit-{app}.*"
    timers = {_name(each["Id"]): each for each in _shown(f"{pattern}.timer", _TIMER)}
    if not timers:
        return []
    services = {
        _name(each["Id"]): each for each in _shown_units([f"deploykit-{app}.{name}.service" for name in timers])
    }
    found = []
    for name, timer in sorted(timers.items()):
        service = services.get(name, {})
        found.append(
            {
                "name": name,
                "next": timer["NextElapseUSecRealtime"],
                "last": service.get("ExecMainStartTimestamp", ""),
                "running": service.get("ActiveState") == "activating",
                "result": service.get("Result", "") if service.get("ExecMainStartTimestamp") else "",
                "status": int(service.get("ExecMainStatus") or 0),
                "on": timer["ActiveState"] == "active",
            }
        )
    return found


def _name(unit: str) -> str:
    return unit.partition(".")[2].rpartition(".")[0]


def _shown(pattern: str, names: tuple[str, ...]) -> list[dict[str, str]]:
    done = run(("systemctl", "show", "--all", f"--property={','.join(names)}", "--", pattern), check=False)
    return _blocks(done.stdout)


def _shown_units(units: list[str]) -> list[dict[str, str]]:
    done = run(("systemctl", "show", f"--property={','.join(_SERVICE)}", "--", *units), check=False)
    return _blocks(done.stdout)


def _blocks(text: str) -> list[dict[str, str]]:
    """One block of NAME=VALUE lines for each unit."""
    blocks = (block.strip() for block in text.split("\n\n"))
    return [
        {name: value for name, _, value in (line.partition("=") for line in block.splitlines())}
        for block in blocks
        if block
    ]
