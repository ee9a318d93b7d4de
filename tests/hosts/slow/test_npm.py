"""A front end by the distribution's own npm, which is hundreds of packages: `apt = ["npm"]`, as in docs/build.md."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .. import front, tiny
from ..conftest import WARM
from ..site import Project, standing

TOML = """\
HOST

[apps.front]
source = "front"
domains = ["front.example"]
database = "sqlite"
apt = ["npm"]
hooks = { after_checkout = ["npm ci", "npm run build"] }
"""


@pytest.fixture(scope="module")
def site(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with standing("npm", WARM) as host:
        project = Project(tmp_path_factory.mktemp("npm"), host)
        tiny.write(project.folder / "front")
        front.write(project.folder / "front")
        project.write(TOML.replace("HOST\n", host.table))
        project.deploy()
        yield project


def test_what_npm_built_is_served(site: Project) -> None:
    node = site.host.said("/usr/bin/node", "--version")
    built = site.host.curl("front.example", "/static/npm.js")
    assert built.text == f'console.log("words of a package, {node}, build");\n'
    assert site.host.said("dpkg-query", "-Wf", "${db:Status-Status}", "npm") == "installed"
    site.settled()
