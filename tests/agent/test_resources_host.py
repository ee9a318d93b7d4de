"""Accounts and packages of this machine. Services are systemd's, so they are tested on hosts alone."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.agent.process import forget
from deploykit.agent.resource import Failed, decode, encode
from deploykit.agent.resources import Group, Package, Service, User, packages, services
from deploykit.agent.resources.accounts import accounts

root = pytest.mark.skipif(os.geteuid() != 0, reason="makes users: needs root")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    forget()
    yield
    forget()


@pytest.fixture
def name() -> Iterator[str]:
    name = f"dkt-{uuid.uuid4().hex[:12]}"
    yield name
    subprocess.run(["userdel", name], check=False, capture_output=True)
    subprocess.run(["groupdel", name], check=False, capture_output=True)


def observed(user: User | Group) -> dict[str, object] | None:
    forget()
    return dict(state) if (state := user.observe()) is not None else None


@root
def test_user(name: str) -> None:
    user = User(name, f"/srv/{name}/home", "/bin/bash", comment="deploykit app x")
    assert decode(encode(user)) == user
    assert observed(user) is None
    user.change(None)
    assert observed(user) == user.wanted()
    forget()
    assert accounts().users[name].uid < 1000, "a system user"
    assert not os.path.exists(f"/srv/{name}")

    # altered by hand in every way, with a process of the user's running: usermod would refuse the home then
    subprocess.run(["usermod", "-s", "/bin/sh", "-c", "x", "-aG", "www-data", "-g", "nogroup", name], check=True)
    subprocess.run(["chpasswd"], input=f"{name}:secret".encode(), check=True)
    passwd = Path("/etc/passwd")
    passwd.write_text(passwd.read_text().replace(f"/srv/{name}/home", f"/srv/{name}/home2"))
    state = observed(user)
    assert state is not None
    assert {key for key, value in user.wanted().items() if state[key] != value} == set(user.wanted())
    with pytest.raises(Failed, match="somebody else's"):
        user.change(user.observe())  # neither home nor comment are ours any more: not taken over
    subprocess.run(["usermod", "-c", "deploykit app x", name], check=True)
    forget()
    sleeper = subprocess.Popen(["sleep", "60"], user=name, cwd="/")
    try:
        user.change(user.observe())
    finally:
        sleeper.kill()
        sleeper.wait()
    assert observed(user) == user.wanted()
    assert passwd.stat().st_mode & 0o777 == 0o644

    user.erase()
    assert observed(user) is None
    forget()
    user.erase()


@root
def test_a_persons_account_is_not_taken_over(name: str) -> None:
    subprocess.run(["useradd", "--no-create-home", "-c", "deploykit app x", name], check=True)
    user = User(name, "/srv/x", comment="deploykit app x")
    with pytest.raises(Failed, match="somebody else's"):
        user.change(user.observe())


@root
def test_a_group_of_the_same_name_is_not_joined(name: str) -> None:
    group = Group(name)
    assert observed(group) is None
    group.change(None)
    assert observed(group) == group.wanted()
    with pytest.raises(Failed, match="has a group"):
        User(name, "/srv/x").change(None)
    group.erase()
    assert observed(group) is None


@pytest.mark.skipif(not os.path.exists("/var/lib/dpkg/status"), reason="not a Debian")
def test_packages_are_read_from_dpkg() -> None:
    assert Package("dpkg").observe() == Package("dpkg").wanted()
    assert Package("no-such-package-at-all").observe() is None
    told = subprocess.run(["dpkg-query", "-Wf", "${Package} ${db:Status-Status}\n"], capture_output=True, text=True)
    there = (" installed", " triggers-awaited", " triggers-pending")  # the last two: unpacked and configured as well
    theirs = {line.split()[0] for line in told.stdout.splitlines() if line.endswith(there)}
    assert {package for package, status in packages.installed().items() if status == "installed"} == theirs
    assert len(theirs) > 50


def test_a_package_that_stands_for_a_name_is_that_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stanza = "Package: {}\nStatus: {}\nVersion: 1\nProvides: {}\nDescription: x\n more\n"
    status = tmp_path / "status"
    status.write_text(
        stanza.format("libmagic1t64", "install ok installed", "libmagic1 (= 1:5.45), libmagic:any")
        + "\n"
        + stanza.format("gone", "deinstall ok config-files", "libgone1")
    )
    monkeypatch.setattr(packages, "_STATUS", str(status))
    for name in ("libmagic1t64", "libmagic1", "libmagic"):
        assert Package(name).observe() == {"status": "installed"}
    assert Package("libgone1").observe() is None and Package("other").observe() is None


@pytest.mark.parametrize(
    ("said", "what", "todo"),
    [
        ("E: Unable to locate package ngnix", "apt knows no package ngnix", "wrong name"),
        ("E: Package 'python3.9' has no installation candidate", "apt knows no package python3.9", "wrong name"),
        ("Err:1 http://d\n  Temporary failure resolving 'deb.debian.org'\nE: Failed to fetch x", "cannot reach", "DNS"),
        ("E: You don't have enough free space in /var/cache/apt/archives/.", "the disk is full", "df -h"),
        (
            "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 812 (unattended-upgr)",
            "locked by unattended-upgr, process 812",
            "Wait",
        ),
        ("dpkg: error processing package x (--configure):", "could not be installed (x)", "by hand"),
    ],
)
def test_what_apt_means(said: str, what: str, todo: str) -> None:
    failed = packages._meaning(said, ["x"])
    assert what in failed.what and todo in failed.todo


def test_services_are_asked_for_together() -> None:
    services._units.clear()
    decode(encode((Service("a.service"), Service("b@c.service", running=False, enabled=False))))
    assert services._units == {"a.service", "b@c.service"}
    services._units.clear()
