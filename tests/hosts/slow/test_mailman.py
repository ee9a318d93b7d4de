"""Mailman's web interface: a package and a settings module of one's own, Django-Q, jobs by the clock, sassc."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from .. import known
from ..site import Project, eventually

LISTS = "lists.example"


@pytest.fixture(scope="module")
def lists(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    secrets = {name: f'it\'s "{name}" #1%\n' for name in ("MAILMAN_PASSWORD", "ARCHIVER_KEY")}
    with known.deployed("Mailman", tmp_path_factory.mktemp("mailman"), "mlm", secrets=secrets) as project:
        yield project


def test_a_second_deploy_changes_nothing(lists: Project) -> None:
    lists.settled()


def test_the_secrets_are_in_its_settings_as_they_were_given(lists: Project) -> None:
    said = lists.host.said(
        "/usr/local/lib/deploykit/in-app", "lists", "python", "-m", "django", "shell", "-c",
        "from django.conf import settings; print(settings.MAILMAN_REST_API_PASS)",
    )  # fmt: skip
    assert said.splitlines()[-1] == 'it\'s "MAILMAN_PASSWORD" #1%'


def test_compiled_stylesheets_are_served(lists: Project) -> None:
    page = lists.host.curl(LISTS, "/archives/")
    assert page.status == 200, page
    made = re.findall(r'"(/static/CACHE/[^"]+)"', page.text)
    assert made, page.text
    assert {lists.host.curl(LISTS, each).status for each in made} == {200}


def test_the_cluster_takes_tasks_and_the_hourly_jobs_run(lists: Project) -> None:
    host = lists.host
    host.said(
        "/usr/local/lib/deploykit/in-app", "lists", "python", "-m", "django", "shell", "-c",
        "from django_q.tasks import async_task; async_task('math.copysign', 2, -2, task_name='sign')",
    )  # fmt: skip
    state = "SELECT success FROM django_q_task WHERE name = 'sign'"
    assert eventually(lambda: host.psql("lists", state) == "t", 60), host.psql("lists", state)
    unit = "deploykit-lists.hourly.service"
    host.sh(f"systemctl start {unit}")
    assert host.said("systemctl", "show", "--property=Result", "--value", unit) == "success"
