"""The systems that are known, and what differs between them: the one table of versions and package names.

What differs otherwise is handled where it matters; docs/systems.md lists it all, with its sources.
"""

from __future__ import annotations

from deploykit.agent.dataclass import dataclass
from deploykit.agent.values import Facts


@dataclass(frozen=True)
class System:
    """One release of a distribution: its name, and the versions in its own archive."""

    name: str
    postgres: str  # major version: part of the package's name and of every path of it
    nginx: tuple[int, int, int]  # decides how HTTP/2 is switched on, and whether strangers' TLS can be refused
    zones: tuple[str, ...] = ("tzdata",)  # packages of the time zones


#: The old names of time zones, such as US/Eastern, have a package of their own from Ubuntu 24.04 and Debian 13 on.
#: https://launchpad.net/ubuntu/noble/+package/tzdata-legacy, https://packages.debian.org/trixie/tzdata-legacy
_SPLIT = ("tzdata", "tzdata-legacy")

#: Sources: https://packages.debian.org and https://packages.ubuntu.com (postgresql, nginx). All packages that deploykit
#: installs have the same name on each. On Ubuntu supervisor, redis-server and python3-pip-whl are in universe.
SYSTEMS: dict[tuple[str, str], System] = {
    ("ubuntu", "22.04"): System("Ubuntu 22.04", "14", (1, 18, 0)),
    ("ubuntu", "24.04"): System("Ubuntu 24.04", "16", (1, 24, 0), _SPLIT),
    ("ubuntu", "26.04"): System("Ubuntu 26.04", "18", (1, 28, 3), _SPLIT),
    ("debian", "12"): System("Debian 12", "15", (1, 22, 1)),
    ("debian", "13"): System("Debian 13", "17", (1, 26, 3), _SPLIT),
}


def supported(facts: Facts) -> str | None:
    """None when the recipes know this system; else why not, and what they know, in words."""
    if (facts.system, facts.version) in SYSTEMS:
        return None
    known = ", ".join(each.name for each in SYSTEMS.values())
    found = f"{facts.system.capitalize() or 'an unknown system'} {facts.version or facts.codename}".strip()
    return f"the host runs {found}, which is not supported. Supported are {known}."


def system(facts: Facts) -> System:
    """The row of a supported host. Raises ValueError for others."""
    if reason := supported(facts):
        raise ValueError(reason)
    return SYSTEMS[facts.system, facts.version]
