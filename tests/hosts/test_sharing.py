"""Equal virtualenvs are made once and shared, by links to what no app can write to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import tiny
from .conftest import WARM
from .site import Host, Project, standing

SHARED = "/var/lib/deploykit/venvs"
DJANGO = "/srv/{}/live/venv/lib/python3*/site-packages/django/__init__.py"


@pytest.fixture(scope="module")
def site(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with standing("share", WARM) as host:
        project = Project(tmp_path_factory.mktemp("sharing"), host)
        text = host.table
        for name in ("one", "two", "three"):
            tiny.write(project.folder / name)
            text += f'\n[apps.{name}]\nsource = "{name}"\ndomains = ["{name}.example"]\nweb = {{ workers = 1 }}\n'
        # published as source only: somebody has to run its setup.py
        (project.folder / "three/requirements.txt").write_text(tiny.REQUIREMENTS + "docopt==0.6.2\n")
        project.write(text)
        project.first = project.deploy()
        yield project


@pytest.fixture(scope="module")
def host(site: Project) -> Host:
    return site.host


def test_two_apps_have_the_same_files(host: Host) -> None:
    one, two = (host.sh(f"stat -L -c '%i %U %a' {DJANGO.format(name)}").split() for name in ("one", "two"))
    assert one == two and one[1:] == ["root", "644"]
    places = {host.sh(f"realpath {DJANGO.format(name)}") for name in ("one", "two")}
    assert len(places) == 1 and places.pop().startswith(SHARED)


def test_each_has_a_virtualenv_of_its_own_all_the_same(host: Host) -> None:
    for name in ("one", "two"):
        venv = f"/srv/{name}/live/venv"
        prefix = host.said(f"{venv}/bin/python", "-c", "import sys; print(sys.prefix)", user=name)
        assert prefix == f"/srv/{name}/live/venv"
        assert host.sh(f"head -1 $(readlink -f {venv})/bin/gunicorn").startswith(f"#!/srv/{name}/venvs/")
        assert host.said(f"{venv}/bin/django-admin", "--version", user=name).startswith("5.2")
        assert host.curl(f"{name}.example").status == 200


def test_nobody_but_root_can_write_to_them(host: Host) -> None:
    tops = {name: host.sh(f"readlink -f /srv/{name}/live/venv") for name in ("one", "two", "three")}
    for name, top in tops.items():
        found = host.run("find", top, SHARED, "-writable", "-not", "-type", "l", check=False, user=name).stdout
        assert found == "", f"{name} can write"
        for other in set(tops) - {name}:
            assert host.run("ls", tops[other], check=False, user=name).returncode != 0
        assert host.run("ls", SHARED, check=False, user=name).returncode != 0


def test_a_package_that_must_be_built_is_the_apps_own_business(host: Host) -> None:
    assert host.sh("stat -L -c %U " + DJANGO.format("three")) == "root"
    assert host.sh("realpath " + DJANGO.format("three")).startswith("/srv/three/venvs/")
    assert host.said("/srv/three/live/venv/bin/python", "-c", "import docopt; print('there')", user="three") == "there"
    assert host.curl("three.example").status == 200


def test_nothing_is_fetched_twice(host: Host) -> None:
    """What one and two share was unpacked once, by nobody's user; an app that shares has no copy in a cache."""
    for name in ("one", "two"):
        assert host.sh(f"find /srv/{name}/home -name wsgi.py | wc -l") == "0"
    owner = host.sh("find /var/cache/deploykit/uv -name wsgi.py -path '*handlers*' -printf '%U\n' | sort | uniq -c")
    assert owner.split()[0] == "1", owner
    assert owner.split()[1] == host.said("id", "-u", "_deploykit")


def test_a_shared_one_goes_with_the_last_app_that_used_it(site: Project, host: Host) -> None:
    count = int(host.sh(f"ls {SHARED} | wc -l"))
    assert count == 1
    text = site.toml.read_text()
    site.write(text.replace('source = "two"', 'source = "two"\nrequirements = "other.txt"'))
    (site.folder / "two/other.txt").write_text(tiny.REQUIREMENTS + "sqlparse\nwhitenoise\n")
    site.deploy()
    assert int(host.sh(f"ls {SHARED} | wc -l")) == 2, "two keeps the release before, and has a new one"
    site.write(host.table + text[text.index("\n[apps.three]") :])
    site.deploy()
    assert int(host.sh(f"ls {SHARED} | wc -l")) == 0
    assert host.curl("three.example").status == 200
