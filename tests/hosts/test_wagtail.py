"""A project that nobody here wrote: what the released `wagtail start` makes, unmodified, with PostgreSQL and media.

On Debian 13: the second distribution, and the Python that the generated requirements want (Django 6 needs 3.12).
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.sandbox import Image

from .conftest import WARM
from .site import Host, Project, standing
from .test_main_job import picture, token

DOMAIN = "wagtail.example"

#: settings/local.py is where the generated production settings look for what belongs to one place of use; what is in
#: it is what Wagtail's manual asks for: the host's values, and django.contrib.postgres for its search on PostgreSQL.
LOCAL = """\
import os

from .base import INSTALLED_APPS

SECRET_KEY = os.environ["SECRET_KEY"]
ALLOWED_HOSTS = os.environ["ALLOWED_HOSTS"].split(",")
CSRF_TRUSTED_ORIGINS = os.environ["CSRF_TRUSTED_ORIGINS"].split(",")
INSTALLED_APPS = [*INSTALLED_APPS, "django.contrib.postgres"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ["DATABASE_NAME"],
        "USER": os.environ["DATABASE_USER"],
        "HOST": os.environ["DATABASE_HOST"],
    }
}
"""


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `wagtail start mysite` writes, by the newest release from the package index."""
    base = tmp_path_factory.mktemp("wagtail")
    subprocess.run([sys.executable, "-m", "venv", str(base / "venv")], check=True)
    subprocess.run([str(base / "venv/bin/pip"), "install", "--quiet", "wagtail"], check=True)
    folder = base / "project" / "mysite"
    folder.mkdir(parents=True)
    subprocess.run([str(base / "venv/bin/wagtail"), "start", "mysite", str(folder)], check=True)
    return folder


@pytest.fixture(scope="module")
def site(prepared: None, generated: Path) -> Iterator[Project]:
    with standing("wag", Image(suite="trixie", packages=WARM.packages)) as host:
        project = Project(generated.parent, host)
        (generated / "mysite/settings/local.py").write_text(LOCAL)
        (generated / "database.txt").write_text("psycopg[binary]\n")
        project.write(host.table)
        added = project.fab("add-app", "wagtail-site", "--source", "mysite", "--domain", DOMAIN)
        assert added.status == 0, added.text
        project.edit(
            "deploykit.toml",
            f'domains = ["{DOMAIN}"]',
            f'domains = ["{DOMAIN}"]\nrequirements = ["requirements.txt", "database.txt"]',
        )
        project.first = project.fab("deploy")
        yield project


@pytest.fixture(scope="module")
def host(site: Project) -> Host:
    return site.host


def test_it_deploys_and_a_second_deploy_changes_nothing(site: Project) -> None:
    assert site.first is not None
    assert site.first.status == 0, site.first.text
    assert site.deploy().last == "nothing to do"


def test_its_pages_and_static_files_are_served(host: Host) -> None:
    page = host.curl(DOMAIN)
    assert page.status == 200, page
    sheet = re.search(r'href="(/static/css/mysite\.[0-9a-f]+\.css)"', page.text)
    assert sheet, page.text[:2000]
    assert host.curl(DOMAIN, sheet[1]).status == 200
    assert "Sign in" in host.curl(DOMAIN, "/admin/login/").text


def test_its_tables_are_in_postgresql(host: Host) -> None:
    assert host.psql("wagtail_site", "SELECT count(*) FROM wagtailcore_page") == "2"


def test_a_picture_uploaded_in_the_admin_is_served_and_outlives_a_release(site: Project, tmp_path: Path) -> None:
    host = site.host
    release = host.said("readlink", "-f", "/srv/wagtail-site/live/code")
    python = host.sh("ls -d /srv/wagtail-site/venvs/*/bin/python | tail -n1")
    host.sh(
        f"cd {release} && runuser -u wagtail-site -- env DJANGO_SUPERUSER_PASSWORD=only-a-test "
        "/usr/local/lib/deploykit/with-env /etc/deploykit/wagtail-site.env "
        f"{python} manage.py createsuperuser --noinput --username admin --email admin@wagtail.example"
    )
    jar = ("--cookie-jar", str(tmp_path / "jar"), "--cookie", str(tmp_path / "jar"))
    form = token(host.curl(DOMAIN, "/admin/login/", *jar).text)
    fields = f"username=admin&password=only-a-test&csrfmiddlewaretoken={form}"
    assert host.curl(DOMAIN, "/admin/login/", *jar, "--data", fields).status == 302
    upload = host.curl(DOMAIN, "/admin/images/add/", *jar)
    assert upload.status == 200, upload
    photo = tmp_path / "stripes.png"
    photo.write_bytes(picture(320, 200))
    cookies = (tmp_path / "jar").read_text()
    secret = re.search(r"csrftoken\s+(\w+)", cookies)
    assert secret, cookies
    header = ("--header", f"X-CSRFToken: {secret[1]}", "--header", "X-Requested-With: XMLHttpRequest")
    sent = host.curl(DOMAIN, "/admin/images/multiple/add/", *jar, *header, "--form", f"files[]=@{photo}",
                     "--form", "title=stripes")  # fmt: skip
    assert sent.status == 200, sent
    assert '"success": true' in sent.text, sent
    name = host.psql("wagtail_site", "SELECT file FROM wagtailimages_image")
    assert host.curl(DOMAIN, f"/media/{name}").body == photo.read_bytes()

    site.edit("mysite/home/templates/home/home_page.html", "{% extends", "{# changed #}\n{% extends")
    site.deploy()
    assert host.said("readlink", "-f", "/srv/wagtail-site/live/code") != release
    assert host.curl(DOMAIN, f"/media/{name}").body == photo.read_bytes()
