"""A port of the loopback is its service's: no other app can answer there, and none can connect."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .site import Host, Project, deployed, eventually, named

TABLES = """
[apps.bank]
source = "bank"
domains = ["bank.example"]
database = "sqlite"
services = { sessions = { kind = "redis", port = 6402 } }

[apps.evil]
source = "evil"
domains = ["evil.example"]
database = "sqlite"
"""

#: Answers whoever comes, and notes what they say.
SQUATTER = """
import socket, sys
server = socket.create_server(("127.0.0.1", 6402), reuse_port=False)
print("listening", flush=True)
while True:
    client, _ = server.accept()
    client.settimeout(2)
    try:
        print("heard", client.recv(1000), flush=True)
    except OSError:
        print("heard nothing", flush=True)
"""
CONNECT = """
import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=2)
s.sendall(b"AUTH secret-of-bank\\r\\n")
print(s.recv(100))
"""


@pytest.fixture(scope="module")
def site(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with deployed(tmp_path_factory.mktemp("port"), "port", TABLES, "bank", "evil") as project:
        yield project


@pytest.fixture(scope="module")
def host(site: Project) -> Host:
    return site.host


def connects(host: Host, user: str) -> str:
    done = host.run("python3", "-c", CONNECT, "6402", user=user, check=False)
    return done.stdout + done.stderr


def test_only_the_app_reaches_its_port(site: Project, host: Host) -> None:
    site.settled()
    assert "WRONGPASS" in connects(host, "bank") and "WRONGPASS" in connects(host, "root")
    for user in ("evil", "www-data", "deploy"):
        assert "ConnectionRefusedError" in connects(host, user), user


def test_who_takes_the_port_is_answered_by_no_client(site: Project, host: Host) -> None:
    unit = "redis-server@bank.sessions.service"
    host.sh(f"systemctl stop {unit}")
    host.sh("echo > /tmp/squatter.log; chmod 666 /tmp/squatter.log")
    start = 'python3 -uc "$1" >/tmp/squatter.log 2>&1 </dev/null & echo'
    host.run("sh", "-c", start, "sh", SQUATTER, user="evil")
    assert eventually(lambda: "listening" in host.sh("cat /tmp/squatter.log"), 10)
    said = connects(host, "bank")
    assert "imed out" in said or "TimeoutError" in said, said
    assert "heard" not in host.sh("cat /tmp/squatter.log")
    ran = site.fab("deploy")
    assert ran.status == 1 and "6402" in ran.text and "python3" in ran.text, ran.text
    host.run("pkill", "-u", "evil", "-f", "create_server")
    site.deploy()
    assert "WRONGPASS" in connects(host, "bank")


def test_rules_that_are_gone_are_seen_and_loaded_again(site: Project, host: Host) -> None:
    host.sh("nft flush ruleset")
    assert "WRONGPASS" in connects(host, "evil"), "with no rule, the port is open: the rule is what closes it"
    assert named(site.changes()) == {"rules of ports"}
    site.deploy()
    assert "ConnectionRefusedError" in connects(host, "evil")
    site.settled()
    host.sh("nft add table inet theirs; nft flush table inet deploykit; systemctl restart deploykit-ports.service")
    assert "ConnectionRefusedError" in connects(host, "evil") and "theirs" in host.sh("nft list tables")


def test_they_are_there_after_a_reboot_and_leave_with_the_last_port(site: Project, host: Host) -> None:
    host.reboot()
    assert "ConnectionRefusedError" in connects(host, "evil")
    site.settled()
    site.write(site.toml.read_text().replace("port = 6402", "memory = 8"))
    site.deploy()
    assert "deploykit" not in host.sh("nft list tables")
    assert host.run("test", "-e", "/etc/deploykit/ports.nft", check=False).returncode == 1
    site.settled()
