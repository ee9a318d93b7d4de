"""25 deploys in a row: what is on the disk, and what runs, is at the end as it was after the first few."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from .. import busy
from ..conftest import WARM
from ..site import Host, Project, standing

TOML = """\
HOST

[apps.tiny]
source = "tiny"
domains = ["tiny.example"]
keep = 3

[apps.tiny.processes.worker]
command = "python manage.py work"
steady = 1

[apps.tiny.processes.beat]
command = "python manage.py beat"
once = true
steady = 1

[apps.tiny.schedule.tick]
command = "true"
at = "daily"
"""


@pytest.fixture(scope="module")
def site(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with standing("many", WARM) as host:
        project = Project(tmp_path_factory.mktemp("many"), host)
        busy.write(project.folder / "tiny")
        project.write(TOML.replace("HOST\n", host.table))
        project.deploy()
        yield project


def processes(host: Host) -> list[str]:
    """The app's and the system's services' processes, without their numbers."""
    lines = host.said("ps", "-eo", "user:16,args").splitlines()
    kept = [line for line in lines if re.match(r"tiny|redis|www-data|root .*(supervisord|nginx: master)", line)]
    return sorted(re.sub(r"(-|\.)[ab]\b|tiny/releases/\w+|\d+", "", line) for line in kept)


def kibibytes(host: Host) -> dict[str, int]:
    """What each place takes on the disk."""
    places = "/srv/tiny /var/lib/deploykit /var/backups/deploykit /var/log/deploykit /etc /run/tiny /run/deploykit"
    lines = host.sh(f"du -sk {places} 2>/dev/null || true").splitlines()
    return {path: int(size) for size, path in (line.split("\t") for line in lines)}


def test_the_25th_leaves_what_the_5th_left(site: Project) -> None:
    host = site.host
    for number in range(2, 27):
        site.edit("tiny/tiny/urls.py", f"version {number - 1} ", f"version {number} ")
        site.deploy()
        assert f"version {number} " in host.curl("tiny.example").text
        if number == 6:
            then, ran = kibibytes(host), processes(host)
    now = kibibytes(host)
    assert processes(host) == ran
    assert {path: size for path, size in now.items() if size > then[path] * 1.05 + 300} == {}, (then, now)
    assert len(host.said("ls", "/srv/tiny/releases").split()) == 3
    assert len(host.said("ls", "/srv/tiny/venvs").split()) == 1
    assert len(host.said("ls", "/etc/supervisor/conf.d").split()) == 1
    assert "tiny-" in host.said("supervisorctl", "status")
    assert host.said("systemctl", "list-units", "--failed", "--plain", "--no-legend") == ""
    site.settled()
