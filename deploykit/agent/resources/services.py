"""Services of systemd."""

from __future__ import annotations

import re
from typing import ClassVar

from deploykit.agent.dataclass import dataclass
from deploykit.agent.process import remembered, run, tail
from deploykit.agent.resource import Action, Failed, Resource, State

#: What a changed unit or drop-in needs before it counts; a restart of its service comes after it.
REREAD = Action("reread systemd's units", (("systemctl", "daemon-reload"),))

#: Every unit that a resource of this run is about, so that the first question to systemd asks for all of them.
_units: set[str] = set()

#: What `systemctl show` calls a unit that starts at boot; "static" ones are started by others.
_ENABLED = frozenset({"enabled", "enabled-runtime", "static", "alias", "generated", "indirect"})


@dataclass(frozen=True)
class Service(Resource):
    """A unit of systemd, with its suffix ("nginx.service"): whether it runs now, and whether it starts at boot.

    When it leaves the configuration it is stopped and disabled; one that was wanted off is left off.
    """

    asks: ClassVar[bool] = True

    unit: str
    running: bool = True
    enabled: bool = True

    def __post_init__(self) -> None:
        _units.add(self.unit)

    @property
    def key(self) -> str:
        return f"service {self.unit}"

    def wanted(self) -> State:
        return {"running": self.running, "enabled": self.enabled}

    def observe(self) -> State | None:
        unit = _show(self.unit)
        if unit["LoadState"] == "not-found" and (self.running or self.enabled):
            return None
        return {
            "running": unit["ActiveState"] in ("active", "reloading", "refreshing"),
            "enabled": unit["LoadState"] != "masked" and unit["UnitFileState"] in _ENABLED,
        }

    def change(self, observed: State | None) -> None:
        unit = _show(self.unit)
        if unit["LoadState"] == "masked" and (self.running or self.enabled):
            run(("systemctl", "unmask", "--", self.unit))
        if unit["NeedDaemonReload"] == "yes" or unit["LoadState"] != "loaded":
            run(("systemctl", "daemon-reload"))  # only then: it costs 0.1 s and more
        now = observed or {"running": False, "enabled": False}
        if now["enabled"] != self.enabled:
            # --no-reload: starting loads the unit, and nothing else depends on the new link before the next boot
            run(("systemctl", "--no-reload", "--quiet", "enable" if self.enabled else "disable", "--", self.unit))
        if now["running"] != self.running:
            self._start() if self.running else run(("systemctl", "stop", "--", self.unit))

    def remove(self) -> None:
        if self.running or self.enabled:
            if _show(self.unit)["LoadState"] == "not-found":
                return
            run(("systemctl", "--quiet", "disable", "--now", "--", self.unit))

    def _start(self) -> None:
        run(("systemctl", "reset-failed", "--", self.unit), check=False)  # else its limit of starts may refuse
        done = run(("systemctl", "start", "--", self.unit), check=False)
        if done.returncode != 0:
            journal = run(("journalctl", "--no-pager", "-q", "-n", "20", "-o", "cat", "-u", self.unit), check=False)
            raise Failed(
                f"the service {self.unit} does not start",
                tail(f"{done.stderr}\n{journal.stdout}{_holders(journal.stdout)}"),
                f"`systemctl status {self.unit}` and `journalctl -u {self.unit}` on the host show more.",
            )


@dataclass(frozen=True)
class SharedService(Service):
    """A service that others than deploykit's apps may use as well: it stays as it is when nothing of ours wants it."""

    removable: ClassVar[bool] = False


def _holders(said: str) -> str:
    """Who listens at the ports that a service's words call taken: another app may have done so while it was down.

    Redis says "Could not create server TCP listening socket 127.0.0.1:6401: bind: Address already in use".
    """
    if "ddress already in use" not in said:
        return ""
    lines = run(("ss", "-Hltnp"), check=False).stdout.splitlines()
    ports = set(re.findall(r":(\d{4,5})\b", said))
    return "".join(f"\ntaken: {line}" for line in lines for port in ports if f":{port} " in line)


def _show(unit: str) -> dict[str, str]:
    _units.add(unit)
    return _shown(tuple(sorted(_units.copy())))[unit]


@remembered
def _shown(units: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """What systemd says of units, in one process: one block of NAME=VALUE lines for each, in the order asked."""
    names = "LoadState,ActiveState,UnitFileState,NeedDaemonReload"
    done = run(("systemctl", "show", f"--property={names}", "--", *units), check=False)
    blocks = [block for block in done.stdout.split("\n\n") if block.strip()]
    if len(blocks) != len(units):
        raise Failed("systemd does not say how its services are", tail(done.stderr), "Is systemd running on the host?")
    return {
        unit: dict(line.split("=", 1) for line in block.strip().splitlines())
        for unit, block in zip(units, blocks, strict=True)
    }
