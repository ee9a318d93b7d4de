"""What hosts of each system say, as recorded there: apt's words, systemd's of cloud-init, os-release, ufw's rules.

apt 2.6 (Debian 12) and 3.0 (Debian 13) were recorded on machines of the tests, 3.3 in a root of Debian's next release,
to see what Ubuntu 26.04's 3.2 may say. 2.4 (Ubuntu 22.04) and 2.7 (24.04) use the words of 2.6, as people report:
https://github.com/aquasecurity/tracee/pull/3934 (22.04), https://github.com/hiddify/Hiddify-Manager/issues/5190 (24.04)
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from deploykit.agent import facts, firstboot
from deploykit.agent.process import ENVIRONMENT, forget, listen
from deploykit.agent.resource import Failed
from deploykit.agent.resources import packages


class Fake:
    """Stands in for `run`: gives recorded answers in turn, the last one for ever, and keeps what was asked."""

    def __init__(self, *answers: tuple[int, str]) -> None:
        self.answers = list(answers)
        self.asked: list[Sequence[str]] = []

    def __call__(self, argv: Sequence[str], **options: object) -> subprocess.CompletedProcess[str]:
        self.asked.append(argv)
        code, said = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        output = options.get("output")
        for line in said.splitlines():
            if callable(output):
                output(line)
        return subprocess.CompletedProcess(argv, code, said, "")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What a person is shown meanwhile. Nobody really sleeps."""
    lines: list[str] = []
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    listen(lines.append)
    forget()
    yield lines
    listen(None)
    forget()


# -- apt's locks ----------------------------------------------------------------------------------

WAITING = (
    "Waiting for cache lock: Could not get lock /var/lib/dpkg/lock-frontend. "
    "It is held by process 2150 (unattended-upgr)...\n"
)
LOCKED = {
    "frontend": "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 2150 (unattended-upgr)\n"
    "N: Be aware that removing the lock file is not a solution and may break your system.\n"
    "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?",
    "frontend, waited for": WAITING * 3
    + "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?",
    "frontend, apt 3.3": "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), "
    "is another process using it?",
    "dpkg": "Waiting for cache lock: Could not get lock /var/lib/dpkg/lock. It is held by process 2172 (dpkg)...\n"
    "E: Unable to lock the administration directory (/var/lib/dpkg/), is another process using it?",
    "lists": "Reading package lists...\n"
    "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 2161 (apt-get)\n"
    "E: Unable to lock directory /var/lib/apt/lists/",
    "archives": "Reading package lists...\nBuilding dependency tree...\nReading state information...\n"
    "E: Could not get lock /var/cache/apt/archives/lock. It is held by process 2167 (apt-get)\n"
    "E: Unable to lock directory /var/cache/apt/archives/",
    "apt, for people": "Error: Could not get lock /var/lib/apt/lists/lock. It is held by process 2161 (apt)\n"
    "Error: Unable to lock directory /var/lib/apt/lists/",
}
HOLDERS = {"frontend, apt 3.3": "another program", "dpkg": "dpkg, process 2172", "archives": "apt-get, process 2167"}


@pytest.mark.parametrize("name", LOCKED)
def test_a_lock_is_waited_for(name: str, told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    apt = Fake((100, LOCKED[name]), (100, LOCKED[name]), (0, "Setting up nginx (1.24.0-2ubuntu7) ..."))
    monkeypatch.setattr(packages, "run", apt)
    assert packages._apt(("apt-get", "install", "nginx"))[0] == 0
    assert len(apt.asked) == 3
    assert told[-1] == "Setting up nginx (1.24.0-2ubuntu7) ..."
    assert len(told) == (1 if name in HOLDERS and HOLDERS[name] == "another program" else 2), "a holder is named once"
    if len(told) == 2:
        assert told[0].startswith("waiting for ") and told[0].endswith("), which has apt's lock")


@pytest.mark.parametrize("name", LOCKED)
def test_who_holds_a_lock_for_ever_is_named(name: str, told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter(range(0, 10_000, 100))
    monkeypatch.setattr("time.monotonic", lambda: next(moments))
    monkeypatch.setattr(packages, "run", Fake((100, LOCKED[name])))
    code, said = packages._apt(("apt-get", "install", "nginx"))
    failed = packages._meaning(said, ["nginx"])
    assert code == 100 and "apt is locked by " in failed.what
    default = {"lists": "apt-get, process 2161", "apt, for people": "apt, process 2161"}
    assert failed.what.endswith({**default, **HOLDERS}.get(name, "unattended-upgr, process 2150")), failed.what


@pytest.mark.parametrize(
    "said",
    [
        f"{WAITING}Reading package lists...\nE: Unable to locate package ngnix",
        "E: Could not open lock file /var/lib/apt/lists/lock - open (30: Read-only file system)\n"
        "E: Unable to lock directory /var/lib/apt/lists/",
    ],
    ids=["waited, then another failure", "no lock at all"],
)
def test_another_failure_is_not_taken_for_a_lock(said: str, told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    apt = Fake((100, said))
    monkeypatch.setattr(packages, "run", apt)
    assert packages._apt(("apt-get", "update"))[0] == 100
    assert len(apt.asked) == 1
    assert "locked" not in packages._meaning(said, ()).what


def test_apt_is_told_what_keeps_it_quiet(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    apt = Fake((0, ""))
    monkeypatch.setattr(packages, "run", apt)
    monkeypatch.setattr(firstboot, "run", Fake((0, "ActiveState=inactive\nJob=\n")))
    monkeypatch.setattr(packages, "_mend", lambda: None)
    monkeypatch.setattr(packages, "outdated", lambda: False)
    packages.install(["nginx"])
    words = " ".join(apt.asked[0])
    assert "DPkg::Lock::Timeout" in words and "--force-confold" in words and "--no-install-recommends" in words
    assert "Phased" not in words, "phased updates are the distribution's to decide"
    assert ENVIRONMENT["DEBIAN_FRONTEND"] == "noninteractive"
    assert ENVIRONMENT["NEEDRESTART_SUSPEND"], "apt-pinvoke of needrestart 3.5 to 3.11: test -n"
    assert ENVIRONMENT["NEEDRESTART_MODE"] == "l", "needrestart knows l, i and a"


# -- universe -------------------------------------------------------------------------------------

UNKNOWN = "Reading package lists...\nE: Unable to locate package supervisor\nE: Unable to locate package redis-server"
NOBLE_LISTS = (
    "archive.ubuntu.com_ubuntu_dists_noble_InRelease",
    "archive.ubuntu.com_ubuntu_dists_noble_main_binary-amd64_Packages",
    "security.ubuntu.com_ubuntu_dists_noble-security_main_binary-amd64_Packages",
)


@pytest.mark.parametrize(
    ("system", "more", "universe"),
    [
        ("ubuntu", (), True),
        ("ubuntu", ("archive.ubuntu.com_ubuntu_dists_noble_universe_binary-amd64_Packages",), False),
        ("ubuntu", ("archive.ubuntu.com_ubuntu_dists_noble_universe_binary-amd64_Packages.lz4",), False),
        ("debian", (), False),
    ],
)
def test_universe(
    system: str, more: tuple[str, ...], universe: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*NOBLE_LISTS, *more):
        (tmp_path / name).touch()
    (tmp_path / "os-release").write_text(OS_RELEASE[system, "24.04" if system == "ubuntu" else "12"])
    monkeypatch.setattr(packages, "_LISTS", str(tmp_path))
    monkeypatch.setattr(packages, "_OS_RELEASE", str(tmp_path / "os-release"))
    failed = packages._meaning(UNKNOWN, ["supervisor", "redis-server"])
    assert failed.what.startswith("apt knows no package redis-server, supervisor")
    assert ("universe is not enabled" in failed.what) == ("add-apt-repository universe" in failed.todo) == universe


# -- dpkg -----------------------------------------------------------------------------------------

#: From Ubuntu's /var/lib/dpkg/status, shortened: a package held, one for two architectures, one that was removed.
STATUS = """\
Package: nginx
Status: install ok installed
Priority: optional
Section: web
Maintainer: Ubuntu Developers <ubuntu-devel-discuss@lists.ubuntu.com>
Architecture: amd64
Version: 1.24.0-2ubuntu7.5
Original-Maintainer: Debian Nginx Maintainers <pkg-nginx-maintainers@alioth-lists.debian.net>

Package: base-files
Essential: yes
Status: install ok installed
Priority: required

Package: supervisor
Status: hold ok installed
Architecture: all

Package: libc6
Protected: yes
Status: install ok triggers-pending
Architecture: amd64
Multi-Arch: same

Package: libc6
Status: install ok half-configured
Architecture: i386
Multi-Arch: same

Package: redis-server
Status: deinstall ok config-files
Architecture: amd64

Package: postgresql-16
Status: install ok unpacked
Architecture: amd64
"""


def test_what_dpkg_has_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "status").write_text(STATUS)
    monkeypatch.setattr(packages, "_STATUS", str(tmp_path / "status"))
    forget()
    assert packages.installed() == {
        "nginx": "installed",
        "base-files": "installed",
        "supervisor": "installed",
        "libc6": "installed",
        "postgresql-16": "unpacked",
    }
    forget()


# -- cloud-init -----------------------------------------------------------------------------------

#: `systemctl show --property=ActiveState,Job cloud-final.service`, recorded with cloud-init 22.4 and 25.1.
ABSENT = "ActiveState=inactive\nJob=\n"  # not installed; and installed by hand: `cloud-init status` is "disabled" then
QUEUED = "ActiveState=inactive\nJob=655\n"  # an earlier stage runs
RUNNING = "ActiveState=activating\nJob=655\n"
DONE = "ActiveState=active\nJob=\n"  # "done", and "degraded done" (exit status 2 since 23.4)
FAILED = "ActiveState=failed\nJob=\n"


@pytest.mark.parametrize("ended", [DONE, FAILED, ABSENT])
def test_a_first_boot_is_waited_for(ended: str, told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    systemctl = Fake((0, QUEUED), (0, QUEUED), (0, RUNNING), (0, ended))
    monkeypatch.setattr(firstboot, "run", systemctl)
    firstboot.wait()
    assert len(systemctl.asked) == 4
    assert told == ["waiting for cloud-init, which is still setting the machine up"]


@pytest.mark.parametrize("state", [ABSENT, DONE, FAILED, ""])
def test_no_first_boot_costs_one_question(state: str, told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    systemctl = Fake((0 if state else 1, state))
    monkeypatch.setattr(firstboot, "run", systemctl)
    firstboot.wait()
    assert len(systemctl.asked) == 1 and told == []


def test_a_first_boot_that_never_ends_is_given_up(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter(range(0, 10_000, 50))
    monkeypatch.setattr("time.monotonic", lambda: next(moments))
    monkeypatch.setattr(firstboot, "run", Fake((0, RUNNING)))
    firstboot.wait()
    assert told[-1] == "cloud-init is not done after 300 s: going on without it"


def test_nothing_is_installed_before_a_first_boot_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait() -> None:
        raise Failed("waits")

    monkeypatch.setattr(firstboot, "wait", wait)
    for work in (packages.install, packages.candidates):
        with pytest.raises(Failed, match="waits"):
            work(["nginx"])


# -- os-release and ufw ---------------------------------------------------------------------------

OS_RELEASE = {
    ("ubuntu", "22.04"): 'PRETTY_NAME="Ubuntu 22.04.5 LTS"\nNAME="Ubuntu"\nVERSION_ID="22.04"\n'
    'VERSION="22.04.5 LTS (Jammy Jellyfish)"\nVERSION_CODENAME=jammy\nID=ubuntu\nID_LIKE=debian\n'
    "UBUNTU_CODENAME=jammy\n",
    ("ubuntu", "24.04"): 'PRETTY_NAME="Ubuntu 24.04.1 LTS"\nNAME="Ubuntu"\nVERSION_ID="24.04"\n'
    'VERSION="24.04.1 LTS (Noble Numbat)"\nVERSION_CODENAME=noble\nID=ubuntu\nID_LIKE=debian\nUBUNTU_CODENAME=noble\n'
    "LOGO=ubuntu-logo\n",
    ("debian", "12"): 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\n'
    'VERSION="12 (bookworm)"\nVERSION_CODENAME=bookworm\nID=debian\n',
    ("debian", "13"): 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nNAME="Debian GNU/Linux"\nVERSION_ID="13"\n'
    'VERSION="13 (trixie)"\nVERSION_CODENAME=trixie\nDEBIAN_VERSION_FULL=13.8\nID=debian\n',
    (
        "debian",
        "",
    ): 'PRETTY_NAME="Debian GNU/Linux forky/sid"\nNAME="Debian GNU/Linux"\nVERSION_CODENAME=forky\nID=debian\n',
}

#: /etc/ufw/user.rules of ufw 0.36.2 after: allow OpenSSH; allow 80/tcp; allow 443; limit 2222/tcp; deny 8000/tcp;
#: allow from 10.0.0.0/8 to any port 5432; allow 9000:9010/tcp; allow 'WWW Full'; allow in on eth0 to any port 81;
#: allow 53/udp; allow out 25/tcp.
USER_RULES = """\
*filter
:ufw-user-input - [0:0]
### RULES ###

### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 OpenSSH - in
-A ufw-user-input -p tcp --dport 22 -j ACCEPT -m comment --comment 'dapp_OpenSSH'

### tuple ### allow tcp 80 0.0.0.0/0 any 0.0.0.0/0 in
-A ufw-user-input -p tcp --dport 80 -j ACCEPT

### tuple ### allow any 443 0.0.0.0/0 any 0.0.0.0/0 in
-A ufw-user-input -p tcp --dport 443 -j ACCEPT
-A ufw-user-input -p udp --dport 443 -j ACCEPT

### tuple ### limit tcp 2222 0.0.0.0/0 any 0.0.0.0/0 in
-A ufw-user-input -p tcp --dport 2222 -j ufw-user-limit-accept

### tuple ### deny tcp 8000 0.0.0.0/0 any 0.0.0.0/0 in
-A ufw-user-input -p tcp --dport 8000 -j DROP

### tuple ### allow any 5432 0.0.0.0/0 any 10.0.0.0/8 in
-A ufw-user-input -p tcp --dport 5432 -s 10.0.0.0/8 -j ACCEPT

### tuple ### allow tcp 9000:9010 0.0.0.0/0 any 0.0.0.0/0 in
-A ufw-user-input -p tcp -m multiport --dports 9000:9010 -j ACCEPT

### tuple ### allow tcp 80,443 0.0.0.0/0 any 0.0.0.0/0 WWW%20Full - in
-A ufw-user-input -p tcp -m multiport --dports 80,443 -j ACCEPT -m comment --comment 'dapp_WWW%20Full'

### tuple ### allow any 81 0.0.0.0/0 any 0.0.0.0/0 in_eth0
-A ufw-user-input -i eth0 -p tcp --dport 81 -j ACCEPT

### tuple ### allow udp 53 0.0.0.0/0 any 0.0.0.0/0 in
-A ufw-user-input -p udp --dport 53 -j ACCEPT

### tuple ### allow tcp 25 0.0.0.0/0 any 0.0.0.0/0 out
-A ufw-user-output -p tcp --dport 25 -j ACCEPT

### END RULES ###
"""


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the host's files hold; those that are not in here are not there."""
    found: dict[str, str] = {}
    monkeypatch.setattr(facts, "_text", lambda path: found.get(path, ""))
    return found


@pytest.mark.parametrize("system", OS_RELEASE)
def test_the_system_names_itself(system: tuple[str, str], files: dict[str, str]) -> None:
    files["/etc/os-release"] = OS_RELEASE[system]
    found = facts.read()
    assert (found.system, found.version) == system
    assert found.codename in OS_RELEASE[system] and found.codename
    assert found.ufw is None


def test_the_ports_that_ufw_lets_in(files: dict[str, str]) -> None:
    files["/etc/default/ufw"] = 'IPV6=yes\nDEFAULT_INPUT_POLICY="DROP"\nDEFAULT_OUTPUT_POLICY="ACCEPT"\n'
    files["/etc/ufw/user.rules"] = USER_RULES
    files["/etc/ufw/ufw.conf"] = "# Set to yes to start on boot.\nENABLED=no\nLOGLEVEL=low\n"  # as Ubuntu ships it
    assert facts.read().ufw is None
    files["/etc/ufw/ufw.conf"] = "ENABLED=yes\nLOGLEVEL=low\n"
    assert facts.read().ufw == "22,2222,443,5432,80,81,9000:9010"
    files["/etc/ufw/user.rules"] = ""
    assert facts.read().ufw == ""
    files["/etc/default/ufw"] = 'DEFAULT_INPUT_POLICY="ACCEPT"\n'
    assert facts.read().ufw is None
