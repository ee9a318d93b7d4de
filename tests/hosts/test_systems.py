"""A machine as clouds sell them: cloud-init at work, needrestart and unattended-upgrades there, ufw, sudo-rs.

Debian 13's packages of these are what Ubuntu's servers have, too: docs/systems.md says what differs.
"""

from __future__ import annotations

import shlex
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploykit.sandbox import BASE, Image

from . import tiny
from .conftest import Make
from .site import Host, Project, Ran, eventually, standing

CLOUD = Image(
    "trixie", ("cloud-init", "curl", "needrestart", "python3-apt", "sudo-rs", "ufw", "unattended-upgrades")
)  # fmt: skip
APP = '[apps.tiny]\nsource = "tiny"\ndomains = ["tiny.example"]\n'

pytestmark = pytest.mark.only("nspawn", "Vagrant sets a machine up by its own means and waits for it")

#: The last stage of a first boot: apt has no sources before its end, which comes when the test says so.
_USER_DATA = """\
#cloud-config
users: []
disable_root: false
ssh_deletekeys: false
apt: {preserve_sources_list: true}
runcmd:
  - [sh, -c, "until [ -e /run/go ]; do sleep 0.1; done; mv /root/sources/* /etc/apt/sources.list.d/"]
"""
_SEED = """\
mkdir -p /var/lib/cloud/seed/nocloud /root/sources
printf 'instance-id: i-1\\nlocal-hostname: %s\\n' "$(uname -n)" > /var/lib/cloud/seed/nocloud/meta-data
cat > /var/lib/cloud/seed/nocloud/user-data
printf 'datasource_list: [NoCloud]\\nnetwork: {config: disabled}\\n' > /etc/cloud/cloud.cfg.d/99-test.cfg
grep -h '^deb' /etc/apt/sources.list > /root/sources/test.list || true
: > /etc/apt/sources.list
find /etc/apt/sources.list.d -type f -exec mv -t /root/sources {} +
rm -rf /var/lib/apt/lists/*
touch /run/before
"""


@pytest.fixture(scope="module")
def site(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project whose machine is in its first boot: sshd answers, cloud-init is not done."""
    with standing("sys", CLOUD) as host:
        host.machine.run("sh", "-ec", _SEED, stdin=_USER_DATA.encode())
        host.sh("setsid sh -c 'sleep 0.1; systemctl reboot' </dev/null >/dev/null 2>&1 &")
        assert eventually(lambda: host.run("test", "!", "-e", "/run/before", check=False).returncode == 0, 60)
        project = Project(tmp_path_factory.mktemp("systems"), host)
        tiny.write(project.folder / "tiny")
        project.write(f"{host.table}\n{APP}")
        yield project


@pytest.fixture(scope="module")
def host(site: Project) -> Host:
    return site.host


def shown(host: Host, name: str, unit: str) -> str:
    return host.said("systemctl", "show", f"--property={name}", "--value", unit)


def until(project: Project, words: str, then: Callable[[], object]) -> Ran:
    """`fab deploy --verbose`; `then` is done once it has said `words`."""
    argv, env = project.command("deploy", "--verbose")
    child = subprocess.Popen(
        argv, cwd=project.folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert child.stdout is not None
    watchdog = threading.Timer(300, child.kill)
    watchdog.start()
    said = ""
    for line in child.stdout:
        said += line.decode()
        if words in said and then is not None:
            then()
            then = None  # type: ignore[assignment]
    watchdog.cancel()
    assert then is None, f"{words!r} was not said: {said}"
    return Ran(child.wait(), said, "", 0.0)


def test_a_deploy_waits_for_the_first_boot(site: Project, host: Host) -> None:
    assert shown(host, "ActiveState", "cloud-final.service") == "activating"
    refused = host.run("apt-get", "-y", "-q", "install", "supervisor", check=False)
    assert "Unable to locate package supervisor" in refused.stderr, "without waiting it cannot go well"
    ran = until(site, "waiting for cloud-init", lambda: host.run("touch", "/run/go"))
    assert ran.status == 0, ran.text
    assert shown(host, "ActiveState", "cloud-final.service") == "active"
    assert "version 1 has 0 notes" in host.curl("tiny.example").text
    site.settled()


def test_the_system_is_as_it_was_told(host: Host) -> None:
    """What the recipes take for granted of Debian 13, and the tests of Ubuntu only have on paper."""
    assert host.said("dpkg-query", "-Wf", "${Version}", "postgresql-17").startswith("17.")
    assert host.said("dpkg-query", "-Wf", "${Version}", "nginx").startswith("1.26.3")
    assert host.said("date", '--date=TZ="US/Eastern" 2026-01-01 00:00', "-u", "+%H") == "05", "an old name of a zone"


def test_needrestart_does_nothing_during_a_deploy(site: Project, host: Host) -> None:
    # Ubuntu's needrestart restarts services from 24.04 on without being asked; this one leaves a sign that it ran.
    host.sh("echo \"\\$nrconf{restart} = 'a'; system('touch /run/restarted');\" > /etc/needrestart/conf.d/ubuntu.conf")
    host.sh("DEBIAN_FRONTEND=noninteractive apt-get -y -qq install hello >/dev/null 2>&1")
    host.sh("test -e /run/restarted; rm /run/restarted")  # after other people's apt
    site.edit("deploykit.toml", 'domains = ["tiny.example"]\n', 'domains = ["tiny.example"]\nredis = true\n')
    programs = host.programs()
    site.deploy()
    assert host.said("dpkg-query", "-Wf", "${db:Status-Status}", "redis-server") == "installed"
    host.sh("! test -e /run/restarted")
    assert programs.keys() != host.programs().keys(), "the app has moved to its other slot, with REDIS_URL"


@pytest.mark.parametrize(
    "holder",
    [
        "apt-get update -o APT::Update::Pre-Invoke::='{wait}'",
        "apt-get -y purge hello -o DPkg::Pre-Invoke::='{wait}'",
    ],
    ids=["lists", "dpkg"],
)
def test_a_deploy_waits_for_apts_locks(site: Project, host: Host, holder: str) -> None:
    host.sh("rm -f /run/go /run/held; rm -rf /var/lib/apt/lists/*_Packages")
    host.sh("DEBIAN_FRONTEND=noninteractive apt-get -y -qq purge tzdata-legacy >/dev/null 2>&1")
    wait = "touch /run/held; until [ -e /run/go ]; do sleep 0.1; done"
    host.sh(f"setsid sh -c {shlex.quote(holder.format(wait=wait))} </dev/null >/dev/null 2>&1 &")
    assert eventually(lambda: host.run("test", "-e", "/run/held", check=False).returncode == 0, 30)
    ran = until(site, "waiting for apt-get (process ", lambda: host.run("touch", "/run/go"))
    assert ran.status == 0, ran.text
    assert host.said("dpkg-query", "-Wf", "${db:Status-Status}", "tzdata-legacy") == "installed"
    site.settled()


def test_a_firewall_that_keeps_visitors_out_is_told(site: Project, host: Host) -> None:
    host.sh("ufw allow OpenSSH && ufw --force enable")
    try:
        assert host.curl("tiny.example", "/", "--max-time", "3").code == 28, "ufw drops it"
        words = "warning: ufw is active on the host and lets nobody in at port 80; as root there: ufw allow 80/tcp"
        for command in ("plan", "deploy"):
            ran = site.fab(command)
            assert ran.status == 0 and words in ran.text, ran.text
        host.sh("ufw allow 'Nginx Full'")
        assert "version 1" in host.curl("tiny.example").text
        assert "ufw" not in site.fab("plan").text
    finally:
        host.sh("ufw --force disable")


def test_postgresql_of_another_version_has_the_port(site: Project, host: Host) -> None:
    """As after an upgrade of the system, or from PostgreSQL's own repository: told before anything is changed."""
    host.sh("mkdir -p /etc/postgresql/16/main")
    host.sh("printf 'port = 5432\\t\\t# (change requires restart)\\n' > /etc/postgresql/16/main/postgresql.conf")
    host.sh("mv /usr/lib/postgresql/17 /usr/lib/postgresql/away")
    try:
        ran = site.fab("deploy")
        assert ran.status == 1 and "PostgreSQL 16 has port 5432, and 17, this system's own, was expected" in ran.stderr
        assert "pg_upgradecluster 16 main" in ran.stderr
    finally:
        host.sh("rm -r /etc/postgresql/16; mv /usr/lib/postgresql/away /usr/lib/postgresql/17")
    site.settled()


def test_sudo_rs_speaks_otherwise(site: Project, host: Host) -> None:
    """Ubuntu's sudo from 25.10 on. With a password it serves from 0.2.7 on: Debian 13's takes too much of the input."""
    host.sh("ln -s /usr/lib/cargo/bin/sudo /usr/local/bin/sudo")
    text = site.toml.read_text()
    table = '[hosts.{user}]\naddress = "{address}"\nuser = "{user}"\n'
    ssh = site.folder.parent / f"{site.folder.name}-home/.ssh"
    ssh.mkdir(mode=0o700, exist_ok=True)
    (ssh / "id_ed25519").write_bytes(host.machine.identity.read_bytes())
    (ssh / "id_ed25519").chmod(0o600)
    (ssh / "known_hosts").write_text(f"{host.address} {host.machine.host_key}\n")
    try:
        for user, words in (
            ("deploy", ""),
            ("asker", "a password is needed (sudo password of asker on asker)"),
            ("limited", "limited may not become root there"),
        ):
            site.write(table.format(user=user, address=host.address) + APP)
            ran = site.fab("status", "--host", user)
            assert (ran.status == 0) == (words == "") and words in ran.text, ran.text
    finally:
        site.write(text)
        host.sh("rm /usr/local/bin/sudo")


#: cloud-init's own words (DISABLE_USER_OPTS in its ssh_util.py).
_ONLY_SAYS = (
    "no-port-forwarding,no-agent-forwarding,no-X11-forwarding,command=\"echo 'Please login as the user "
    '\\"ubuntu\\" rather than the user \\"limited\\".\';echo;sleep 10;exit 142"'
)


def test_a_cloud_that_wants_another_user(site: Project, host: Host) -> None:
    home = host.sh("getent passwd limited | cut -d: -f6")
    keys = host.sh(f"cat {home}/.ssh/authorized_keys")
    host.machine.run("tee", f"{home}/.ssh/authorized_keys", stdin=f"{_ONLY_SAYS} {keys}\n".encode())
    text = site.toml.read_text()
    site.write(f'[hosts.limited]\naddress = "{host.address}"\nuser = "limited"\n{APP}')
    try:
        ran = site.fab("plan")
        assert ran.status == 1 and "Traceback" not in ran.text
        assert "host limited: limited may not log in there" in ran.stderr and 'user = "ubuntu"' in ran.stderr
    finally:
        site.write(text)


def test_a_part_of_python_is_no_python(machine: Make, tmp_path: Path) -> None:
    """python3-minimal lacks most of the library; and the lists are locked while the rest is installed."""
    found = machine("min", image=BASE)
    host = Host(found)
    host.sh("apt-get -qq purge -y python3 libpython3-stdlib '^libpython3.[0-9]+-stdlib$' >/dev/null 2>&1; "
            "command -v python3; ! python3 -c 'import json' 2>/dev/null")  # fmt: skip
    host.sh("setsid sh -c \"apt-get update -o APT::Update::Pre-Invoke::='touch /run/held; sleep 4'\" "
            "</dev/null >/dev/null 2>&1 &")  # fmt: skip
    assert eventually(lambda: host.run("test", "-e", "/run/held", check=False).returncode == 0, 30)
    project = Project(tmp_path, host)
    project.write(host.table)
    ran = project.fab("plan")
    assert ran.status in (0, 2), ran.text
    assert host.said("python3", "-c", "import json; print(1)") == "1"
