"""pretix: a package without a project folder, its ini file, its static files in the package, Celery, a schedule."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .. import known
from ..site import Project, eventually

TICKETS = "tickets.example"


@pytest.fixture(scope="module")
def tickets(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with known.deployed("pretix", tmp_path_factory.mktemp("pretix"), "pre") as project:
        yield project


def test_a_second_deploy_changes_nothing(tickets: Project) -> None:
    tickets.settled()


def test_static_files_out_of_the_package_are_served(tickets: Project) -> None:
    page = tickets.host.curl(TICKETS, "/control/login")
    assert page.status == 200, page
    files = re.findall(r'"(/static/[^"]+\.(?:css|js|png|ico))"', page.text)
    assert files, page.text
    assert {tickets.host.curl(TICKETS, file).status for file in files} == {200}


def test_an_upload_is_where_nginx_serves_it(tickets: Project) -> None:
    """MEDIA_ROOT is a folder in its data folder."""
    store = "from django.core.files.storage import default_storage as s; from io import BytesIO; "
    tickets.host.said(
        "/usr/local/lib/deploykit/in-app", "tickets", "python", "-m", "django", "shell", "-c",
        store + "print(s.save('pub/seen.txt', BytesIO(b'seen')))",
    )  # fmt: skip
    assert tickets.host.curl(TICKETS, "/media/pub/seen.txt").body == b"seen"


def test_the_schedule_gives_the_worker_its_tasks(tickets: Project) -> None:
    host = tickets.host
    host.sh("systemctl start deploykit-tickets.periodic.service")
    assert (
        host.said("systemctl", "show", "--property=Result", "--value", "deploykit-tickets.periodic.service")
        == "success"
    )
    log = Path("/var/log/deploykit/tickets-a.worker-1.log")
    assert eventually(lambda: re.search(r"Task pretix\S+ succeeded in", host.said("cat", str(log))), 60), host.said(
        "tail", "-n50", str(log)
    )
