"""An app that leaves deploykit.toml leaves the host, and its data waits for it; destroying that takes other words."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from .conftest import WARM
from .site import LINKS, MEMORIES, Host, Project, standing


@pytest.fixture(scope="module")
def site(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Two apps with a row each, a file in each data folder, and a picture."""
    with standing("gone", WARM) as host:
        project = Project(tmp_path_factory.mktemp("gone"), host).three()
        project.write(without(project.toml.read_text(), "reader"))
        project.deploy()
        host.psql(
            "memories",
            "INSERT INTO photos_album (title, slug, description, created_at) VALUES ('kept', 'kept', '', now())",
        )
        host.psql("links", "INSERT INTO board_tag (name) VALUES ('kept')")
        for app in ("memories", "links"):
            host.sh(f"runuser -u {app} -- sh -c 'umask 027; echo kept > /srv/{app}/data/file'")
        host.sh("runuser -u memories -- sh -c 'umask 022; cd /srv/memories/media; mkdir x; echo kept > x/p.txt'")
        yield project


@pytest.fixture(scope="module")
def host(site: Project) -> Host:
    return site.host


def without(toml: str, app: str) -> str:
    """deploykit.toml without an app's tables."""
    return "".join(
        part for part in re.split(r"(?m)^(?=\[)", toml) if not part.startswith((f"[apps.{app}]", f"[apps.{app}."))
    )


def traces(host: Host, app: str) -> list[str]:
    """What of an app that has left could still do something: processes, settings, code."""
    places = "/etc/nginx /etc/supervisor /etc/tmpfiles.d /etc/deploykit /etc/systemd /run"
    found = host.sh(f"find {places} -name '*{app}*' -not -path '/run/systemd/*' -not -path '/run/user/*'").split()
    found += host.sh(
        f"ls -d /srv/{app}/live /srv/{app}/previous /srv/{app}/releases/* /srv/{app}/venvs/* 2>/dev/null || true"
    ).split()
    found += [line for line in host.said("ps", "-eo", "user:32,args").splitlines() if line.split()[0] == app]
    return found


def test_removed_and_added_again(site: Project, host: Host) -> None:
    whole = site.toml.read_text()
    assert host.curl(MEMORIES, "/media/x/p.txt").body == b"kept\n"
    others = {name: pid for name, pid in host.pids().items() if not name.startswith("memories")}
    site.write(without(whole, "memories"))

    planned = site.fab("plan")
    assert planned.status == 2
    gone = {line[2:] for line in planned.stdout.splitlines() if line.startswith("- ")}
    assert {"app memories", "file /etc/nginx/sites-available/memories.conf"} <= gone
    for word in (
        "postgres database memories",
        "postgres role memories",
        "user memories",
        "media",
        "/srv/memories/data",
    ):
        assert not any(word in key for key in gone), gone
    assert re.search(r"stays.*postgres database memories", planned.stdout)
    assert not [line for line in planned.stdout.splitlines() if line.startswith(("- ", "+ ", "~ ")) and "links" in line]
    host.up(MEMORIES)  # a plan changes nothing

    site.deploy()
    site.settled()
    host.refuses(MEMORIES)
    host.refuses(f"www.{MEMORIES}")
    host.up(LINKS)
    assert traces(host, "memories") == []
    assert host.pids() == others
    assert host.psql("memories", "SELECT title FROM photos_album") == "kept"
    assert host.sh("cat /srv/memories/data/file /srv/memories/media/x/p.txt") == "kept\nkept"

    secret = host.sh("sha256sum /var/lib/deploykit/secrets/memories.json")
    site.write(whole)
    site.deploy()
    site.settled()
    host.up(MEMORIES, LINKS)
    assert host.psql("memories", "SELECT title FROM photos_album") == "kept"
    assert host.curl(MEMORIES, "/media/x/p.txt").body == b"kept\n"
    assert host.sh("sha256sum /var/lib/deploykit/secrets/memories.json") == secret  # sessions stay valid
    assert {name: pid for name, pid in host.pids().items() if not name.startswith("memories")} == others


def test_a_redis_leaves_with_its_app(site: Project, host: Host) -> None:
    whole = site.toml.read_text()
    site.write(without(whole, "links"))
    site.deploy()
    site.settled()
    host.refuses(LINKS)
    assert traces(host, "links") == []
    assert "redis-server@links" not in host.said("systemctl", "list-units", "--plain", "--no-legend", "--all", "redis*")
    site.write(whole)
    site.deploy()
    host.up(LINKS, MEMORIES)
    assert host.psql("links", "SELECT name FROM board_tag") == "kept"


def test_an_app_leaves_alone_and_its_data_can_follow_later(site: Project, host: Host) -> None:
    whole = site.toml.read_text()
    pids = {name: pid for name, pid in host.pids().items() if "links" not in name}
    site.edit("deploykit.toml", 'max_body = "50m"', 'max_body = "51m"')  # another change, that nobody asked to be made
    ran = site.fab("remove-app", "links")
    assert ran.status == 0, ran.text
    assert "[apps.links]" not in site.toml.read_text()
    host.refuses(LINKS)
    assert {name: pid for name, pid in host.pids().items() if "links" not in name} == pids
    assert "51m" not in host.sh("cat /etc/nginx/sites-available/memories.conf")
    assert host.psql("links", "SELECT name FROM board_tag") == "kept"

    ran = site.fab("remove-app", "links", "--delete-data", "--yes")
    assert ran.status == 0, ran.text
    assert host.psql("postgres", "SELECT count(*) FROM pg_database WHERE datname = 'links'") == "0"
    assert host.sh("ls /srv") == "memories"
    assert "TABLE DATA public board_tag" in host.sh("pg_restore --list /var/backups/deploykit/links/*-deleted.dump")

    again = site.fab("remove-app", "links")
    assert again.status == 1
    assert "nothing of links is on the host" in again.text
    site.write(whole)
    site.deploy()
    host.up(LINKS, MEMORIES)


def test_deleting_data_asks_first(site: Project, host: Host) -> None:
    refused = site.fab("remove-app", "links", "--delete-data")  # there is no terminal to answer
    assert refused.status == 1 and "nothing was removed" in refused.text
    host.up(LINKS)
    site.settled()
    assert "[apps.links]" in site.toml.read_text()


def test_remove_app_with_its_data(site: Project, host: Host) -> None:
    others = {name: pid for name, pid in host.pids().items() if not re.search("memories", name)}
    before = site.toml.read_text()
    ran = site.fab("remove-app", "memories", "--delete-data", "--yes")
    assert ran.status == 0, ran.text
    assert site.toml.read_text() == without(before, "memories")
    host.refuses(MEMORIES)
    host.up(LINKS)
    assert traces(host, "memories") == []
    assert host.run("test", "-e", "/srv/memories", check=False).returncode == 1
    assert host.run("id", "memories", check=False).returncode == 1
    assert host.psql("postgres", "SELECT count(*) FROM pg_database WHERE datname = 'memories'") == "0"
    assert host.psql("postgres", "SELECT count(*) FROM pg_roles WHERE rolname = 'memories'") == "0"
    assert host.run("test", "-e", "/var/lib/deploykit/secrets/memories.json", check=False).returncode == 1
    assert host.pids() == others

    (dump,) = host.sh("ls /var/backups/deploykit/memories/*deleted*.dump").split()
    assert host.said("stat", "--format=%a %U", dump) == "600 root"
    assert "TABLE DATA public photos_album" in host.said("pg_restore", "--list", dump)
    host.sh(f"runuser -u postgres -- createdb again; runuser -u postgres -- pg_restore --no-owner -d again < {dump}")
    assert host.psql("again", "SELECT title FROM photos_album") == "kept"
    site.settled()
