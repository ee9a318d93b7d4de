"""What fails of one app is told, and costs no other app its deploy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .site import Host, Project, Ran, deployed

BANK, EVIL = "bank.example", "evil.example"

TABLES = """
[apps.bank]
source = "bank"
domains = ["bank.example"]
database = "sqlite"

[apps.evil]
source = "evil"
domains = ["evil.example"]
database = "sqlite"
broker = "redis"
"""


@pytest.fixture(scope="module")
def site(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with deployed(tmp_path_factory.mktemp("one"), "one", TABLES, "bank", "evil") as project:
        yield project


@pytest.fixture(scope="module")
def host(site: Project) -> Host:
    return site.host


def banks_release(site: Project, host: Host, mark: str, *options: str, status: int = 1) -> Ran:
    """A deploy in which bank's next release goes live, whatever becomes of evil."""
    site.edit("bank/tiny/urls.py", "version", f"{mark} version")
    ran = site.fab("deploy", *options)
    assert ran.status == status, ran.text
    assert "itself failed" not in ran.text and "Traceback" not in ran.text, ran.text
    assert f"{mark} version" in host.curl(BANK).text, ran.text
    site.edit("bank/tiny/urls.py", f"{mark} version", "version")
    return ran


def test_a_file_in_the_place_of_an_apps_folder(site: Project, host: Host) -> None:
    host.sh("systemctl stop redis-server@evil.broker.service")
    host.run("sh", "-c", "cd /srv/evil/data && mv redis-broker kept && touch redis-broker", user="evil")
    ran = banks_release(site, host, "file")
    assert "/srv/evil/data/redis-broker" in ran.text
    banks_release(site, host, "only", "--app", "bank")
    host.run("sh", "-c", "cd /srv/evil/data && rm redis-broker && mv kept redis-broker", user="evil")
    site.deploy()
    site.settled()


def test_a_site_that_nginx_refuses(site: Project, host: Host) -> None:
    text = site.toml.read_text()
    site.write(
        text
        + '\n[apps.evil.nginx]\nsnippet = "no_such_directive on;"\n\n[apps.bank.nginx]\nheaders = { X-Bank = "1" }\n'
    )
    ran = banks_release(site, host, "site")
    assert "no_such_directive" in ran.text and "of evil" in ran.text
    assert host.curl(BANK).headers["x-bank"] == "1", "its own change of nginx is in force"
    assert host.curl(EVIL).status == 200, "with the site from before"
    site.write(text)
    site.deploy()
    assert "x-bank" not in host.curl(BANK).headers


def test_folders_where_sockets_and_links_are_made(site: Project, host: Host) -> None:
    folder = "/run/evil"
    host.run("mkdir", "-p", f"{folder}/live.zzz.sock/x", f"{folder}/a.zzz.sock/x", f"{folder}/once.x/y", user="evil")
    site.edit("evil/tiny/urls.py", "version", "next version")
    banks_release(site, host, "folders", status=0)
    assert "next version" in host.curl(EVIL).text


def test_an_app_that_left_the_file_and_cannot_be_removed(site: Project, host: Host) -> None:
    text = site.toml.read_text()
    host.sh("chattr +i /etc/deploykit/redis-evil.broker.conf")
    site.write(text.partition("[apps.evil]")[0])
    ran = banks_release(site, host, "left")
    assert "redis-evil.broker.conf" in ran.text, ran.text
    assert "redis-evil.broker.conf" in site.fab("plan").stdout, "it is still ours to remove"
    host.sh("chattr -i /etc/deploykit/redis-evil.broker.conf")
    site.deploy()
    site.settled()
    assert host.run("test", "-e", "/etc/deploykit/redis-evil.broker.conf", check=False).returncode == 1
