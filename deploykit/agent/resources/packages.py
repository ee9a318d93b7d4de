"""Packages of the distribution: all that are missing in one transaction of apt."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Sequence
from typing import ClassVar

from deploykit.agent import firstboot
from deploykit.agent.dataclass import dataclass
from deploykit.agent.process import heard, remembered, run, tail
from deploykit.agent.resource import Failed, Resource, State

_STATUS = "/var/lib/dpkg/status"
_LISTS = "/var/lib/apt/lists"
_OS_RELEASE = "/etc/os-release"
_DAY = 86_400  # seconds
#: Seconds to wait for whoever holds apt's locks: on a new machine unattended-upgrades, which Ubuntu has switched on.
#: https://documentation.ubuntu.com/server/how-to/software/automatic-updates/
_PATIENCE = 600
_OPTIONS = (
    "-o",
    "DPkg::Lock::Timeout=300",
    "-o",
    "Dpkg::Options::=--force-confdef",  # never ask about a changed config file: the host's version stays
    "-o",
    "Dpkg::Options::=--force-confold",
    "-o",
    "Dpkg::Use-Pty=0",
    "-o",
    "APT::Color=0",
)
_UNKNOWN = re.compile(
    r"Unable to locate package (\S+)|Package '?([^\s']+)'? has no installation candidate"
    r"|Couldn't find any package by \w+ '([^']+)'"
)
_STALE = re.compile(r"404 +Not Found|Hash Sum mismatch|File has unexpected size")
#: apt 2.4 to 3.3 say so alike, the later ones with a longer prefix where they write for people.
_LOCKED = re.compile(r"^(?:E|Error): (?:Could not get lock |Unable to (?:lock|acquire) )", re.MULTILINE)
_HOLDER = re.compile(r"held by process (\d+) \(([^)]*)\)")
_NETWORK = re.compile(
    r"Temporary failure resolving|Could not resolve|Could not connect|Cannot initiate the connection"
    r"|Connection (?:failed|timed out|refused)|Network is unreachable|Failed to fetch"
)
_FULL = re.compile(r"No space left on device|You don't have enough free space")


@dataclass(frozen=True)
class Package(Resource):
    """A package of the distribution, whatever its version. Never removed: something else may rely on it."""

    together: ClassVar[bool] = True
    removable: ClassVar[bool] = False

    name: str

    @property
    def key(self) -> str:
        return f"package {self.name}"

    def wanted(self) -> State:
        return {"status": "installed"}

    def observe(self) -> State | None:
        found = status(self.name)
        return None if found is None else {"status": found}

    def change(self, observed: State | None) -> None:
        type(self).change_together([self])

    @classmethod
    def change_together(cls, several: Sequence[Resource]) -> None:
        """One `apt-get install` for all of them; afterwards every one is installed, or Failed was raised."""
        install([each.name for each in several if isinstance(each, Package)])


@remembered
def installed() -> dict[str, str]:
    """Every package dpkg has unpacked, by name: "installed", or how far it got ("half-configured").

    dpkg's own file instead of `dpkg-query`: its format is stable, and reading it costs 2 ms and no process.
    """
    with open(_STATUS, "rb") as file:
        content = file.read()
    found: dict[str, str] = {}
    for name, status in re.findall(rb"^Package: (\S+)\n(?:\S+: .*\n)*?Status: \S+ \S+ (\S+)$", content, re.MULTILINE):
        word = status.decode()
        if word in ("triggers-awaited", "triggers-pending"):
            word = "installed"  # unpacked and configured; only a trigger of another package is outstanding
        if word not in ("not-installed", "config-files") and found.get(name.decode()) != "installed":
            found[name.decode()] = word
    return found


def status(name: str) -> str | None:
    """How far a package got, "installed" at the end; that of one that stands for it, when nothing has its own name.

    apt installs libmagic1t64 for libmagic1 on Ubuntu 24.04 and Debian 13, where that name is only provided:
    https://wiki.debian.org/ReleaseGoals/64bit-time
    """
    found = installed().get(name)
    return "installed" if found is None and name in provided() else found


@remembered
def provided() -> frozenset[str]:
    """The names that installed packages stand for. Only asked for those that are no package's own."""
    with open(_STATUS, "rb") as file:
        content = file.read().decode("utf-8", "replace")
    found: set[str] = set()
    for stanza in content.split("\n\n"):
        names = re.search(r"^Provides: (.*)$", stanza, re.MULTILINE)
        if names and re.search(r"^Status: \S+ \S+ installed$", stanza, re.MULTILINE):
            found |= {each.split()[0].partition(":")[0] for each in names[1].split(",") if each.strip()}
    return frozenset(found)


def install(names: Sequence[str]) -> None:
    """Installs packages in one transaction, with no recommendations. Raises Failed with what apt meant."""
    firstboot.wait()
    _mend()
    fresh = False
    if outdated():
        _update()
        fresh = True
    argv = ("apt-get", "-y", "-q", "--no-install-recommends", *_OPTIONS, "install", *names)
    code, said = _apt(argv)
    if code != 0 and not fresh and (_UNKNOWN.search(said) or _STALE.search(said)):
        _update()  # the lists were there but do not know what we want, or name versions that are gone by now
        code, said = _apt(argv)
    if code != 0:
        raise _meaning(said, names)


def candidates(names: Sequence[str]) -> dict[str, str]:
    """The versions apt would install of packages, by name; those it does not know are missing. One process."""
    firstboot.wait()
    if outdated():
        _update()
    done = run(("apt-cache", "policy", *names), check=False)
    pairs = re.findall(r"^(\S+):\n(?:  .*\n)*?  Candidate: (\S+)$", done.stdout, re.MULTILINE)
    return {name: version for name, version in pairs if version != "(none)" and name in names}  # it takes patterns too


def _mend() -> None:
    """Finishes what an interrupted dpkg left (the machine was switched off meanwhile): apt refuses to work before."""
    with contextlib.suppress(FileNotFoundError):
        if not os.listdir("/var/lib/dpkg/updates") and all(s == "installed" for s in installed().values()):
            return
    run(("dpkg", "--force-confdef", "--force-confold", "--configure", "-a"), check=False)
    _apt(("apt-get", "-y", "-q", *_OPTIONS, "--fix-broken", "install"))


def outdated() -> bool:
    """Whether the package lists are missing or older than a day."""
    try:
        if not any("_Packages" in name for name in os.listdir(_LISTS)):
            return True
    except FileNotFoundError:
        return True
    newest = 0.0
    # The lists carry the server's times; `partial` is written to at each update, the stamp where update-notifier is.
    for path in (_LISTS, f"{_LISTS}/partial", "/var/lib/apt/periodic/update-success-stamp"):
        with contextlib.suppress(FileNotFoundError):
            newest = max(newest, os.stat(path).st_mtime)
    return not 0 <= time.time() - newest <= _DAY  # a clock that was put back tells nothing


def _update() -> None:
    """Fetches the package lists. That one repository of several fails is no reason to stop: the install will tell."""
    code, said = _apt(("apt-get", "-q", *_OPTIONS, "update"))
    if code != 0 and (_FULL.search(said) or _locked(said)):
        raise _meaning(said, ())


def _apt(argv: Sequence[str]) -> tuple[int, str]:
    """Runs apt, and again while somebody else holds one of its locks.

    DPkg::Lock::Timeout covers dpkg's own locks alone, not those of the lists and of the archives.
    """
    told: set[str] = set()

    def follow(line: str) -> None:
        if line.startswith(("Get:", "Unpacking ", "Setting up ")):
            heard(line)
        elif (holder := _HOLDER.search(line)) and holder[1] not in told:  # apt says it anew each second
            told.add(holder[1])
            heard(f"waiting for {holder[2]} (process {holder[1]}), which has apt's lock")

    end = time.monotonic() + _PATIENCE
    while True:
        done = run(argv, check=False, output=follow)
        said = done.stdout
        if done.returncode == 0 or not _locked(said) or time.monotonic() > end:
            return done.returncode, said
        time.sleep(2)


def _locked(said: str) -> bool:
    """Whether apt gave up because of a lock that others hold; a lock file that cannot be opened is another matter."""
    return bool(_LOCKED.search(said)) and "Could not open lock file" not in said


def _meaning(said: str, names: Sequence[str]) -> Failed:
    """What apt's complaint means to a person."""
    marks = ("E:", "W:", "Error:", "Warning:", "dpkg: error", "Err:")
    complaints = [line for line in said.splitlines() if line.startswith(marks)]
    detail = tail("\n".join(complaints) if complaints else said)
    what = f"packages could not be installed ({' '.join(names)})" if names else "the package lists could not be fetched"
    if unknown := sorted({next(filter(None, each)) for each in _UNKNOWN.findall(said)}):
        what = f"apt knows no package {', '.join(unknown)}"
        if _without_universe():
            return Failed(
                f"{what}: Ubuntu's component universe is not enabled",
                detail,
                "Enable it: `add-apt-repository universe`, or write it behind `main` in "
                "/etc/apt/sources.list.d/ubuntu.sources (22.04: /etc/apt/sources.list). Then deploy again.",
            )
        return Failed(
            what, detail, "Look for a wrong name, a repository that is not enabled in /etc/apt, or no network."
        )
    if _FULL.search(said):
        return Failed(f"{what}: the disk is full", detail, "Make room (`df -h`, `apt-get clean`), then deploy again.")
    if _locked(said):
        holders = _HOLDER.findall(said)
        holder = f"{holders[-1][1]}, process {holders[-1][0]}" if holders else "another program"
        return Failed(f"{what}: apt is locked by {holder}", detail, "Wait until it is done, then deploy again.")
    if _NETWORK.search(said):
        return Failed(
            f"{what}: the host cannot reach the package servers",
            detail,
            "Check the host's DNS (/etc/resolv.conf), its way out to the internet, and proxies in /etc/apt.",
        )
    return Failed(what, detail or tail(said), "`apt-get install` by hand on the host shows the whole of it.")


def _without_universe() -> bool:
    """Whether this is an Ubuntu whose sources leave out universe, where supervisor, redis-server and pip's wheel are.

    Minimal and hardened images may: https://documentation.ubuntu.com/server/explanation/software/about-apt/
    """
    try:
        with open(_OS_RELEASE, encoding="utf-8") as file:
            ubuntu = "ID=ubuntu" in file.read().splitlines()
        return ubuntu and not any("_universe_" in name for name in os.listdir(_LISTS))
    except OSError:
        return False
