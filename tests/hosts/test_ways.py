"""Ways that the other tests do not take: Fabric's -H, a jump host, uv.lock, and the way back after the switch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from . import tiny
from .conftest import WARM
from .site import READER, Host, Project, standing

TINY = "tiny.example"


@pytest.fixture(scope="module")
def site(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with standing("ways", WARM) as host:
        base = tmp_path_factory.mktemp("ways")
        (base / "project").mkdir()
        project = Project(base / "project", host)
        project.example("reader")
        subprocess.run([sys.executable, "-m", "venv", str(base / "venv")], check=True)
        subprocess.run([str(base / "venv/bin/pip"), "install", "--quiet", "uv"], check=True)
        subprocess.run(
            [str(base / "venv/bin/uv"), "lock", "--quiet"], cwd=project.folder / "examples/reader", check=True
        )
        tiny.write(project.folder / "tiny")
        project.write(
            f"{host.table}\n"
            f'[apps.reader]\nsource = "examples/reader"\ndomains = ["{READER}"]\n'
            'database = "sqlite"\nstatic = false\n\n'
            f'[apps.tiny]\nsource = "tiny"\ndomains = ["{TINY}"]\n'
        )
        project.first = project.fab("deploy")
        assert project.first.status == 0, project.first.text
        yield project


@pytest.fixture(scope="module")
def host(site: Project) -> Host:
    return site.host


def test_a_uv_lock_decides_what_is_installed(site: Project, host: Host) -> None:
    assert (site.folder / "examples/reader/uv.lock").is_file()
    host.up(READER)
    locked = (site.folder / "examples/reader/uv.lock").read_text()
    version = locked.split('name = "django"\nversion = "')[1].partition('"')[0]
    assert host.sh(f"ls -d /srv/reader/live/venv/lib/python3.*/site-packages/django-{version}.dist-info")


def test_fabrics_own_option_names_the_host(site: Project) -> None:
    ran = site.fab("-H", site.host.name, "plan")
    assert (ran.status, ran.last) == (0, "nothing to do"), ran.text


def test_a_mistake_in_the_file_is_told_and_nothing_stays_on_the_host(site: Project, host: Host) -> None:
    """The connection is open by the time that the file has been read."""
    site.settled()
    site.edit("deploykit.toml", "static = false", "statik = false")
    ran = site.fab("deploy")
    assert ran.status == 1 and "statik" in ran.text, ran.text
    site.edit("deploykit.toml", "statik = false", "static = false")
    host.sh("for i in $(seq 50); do pgrep -f '[/]var/lib/deploykit/agent' || exit 0; sleep 0.1; done; exit 1")
    site.settled()


def test_the_plan_says_how_memory_is_shared(site: Project) -> None:
    assert "MiB of memory: " in site.fab("plan").stdout
    assert "PostgreSQL" in site.fab("plan").stdout


def test_a_jump_host_of_the_ssh_configuration(site: Project, host: Host) -> None:
    box = host.machine
    home = site.folder.parent / f"{site.folder.name}-home"
    (home / ".ssh").mkdir(mode=0o700, parents=True, exist_ok=True)
    (home / ".ssh/known_hosts").write_text(f"{box.address},127.0.0.1 {box.host_key}\n")
    (home / ".ssh/config").write_text(
        f"Host jump\n  HostName {box.address}\n  User root\n  IdentityFile {box.identity}\n"
        f"Host inner\n  HostName 127.0.0.1\n  User root\n  IdentityFile {box.identity}\n  ProxyJump jump\n"
    )
    ran = site.fab("plan", "--host", "inner")
    assert (ran.status, ran.last) == (0, "nothing to do"), ran.text


def test_a_release_that_fails_behind_nginx_is_swapped_back(site: Project, host: Host) -> None:
    """Healthy when asked on its socket, broken for visitors: only seen after the switch."""
    before = host.programs()
    good = (site.folder / "tiny/tiny/urls.py").read_text()
    site.edit(
        "tiny/tiny/urls.py",
        "def home(request):\n",
        'def home(request):\n    if "HTTP_X_REAL_IP" in request.META:\n'
        '        return HttpResponse("broken", status=500)\n',
    )
    ran = site.fab("deploy")
    assert ran.status == 1, ran.text
    assert "answers 500 through nginx, after the switch" in ran.text
    assert "the release before is live again" in ran.text
    assert host.programs() == before
    assert host.curl(TINY).status == 200
    (site.folder / "tiny/tiny/urls.py").write_text(good)
    site.settled()
