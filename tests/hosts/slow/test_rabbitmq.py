"""Memories with RabbitMQ in Redis's place: one word in deploykit.toml, and the same promises."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from .. import queued
from ..conftest import WARM
from ..site import Project, standing


@pytest.fixture(scope="module")
def site(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    def rabbit(text: str) -> str:
        """Memories alone, with the other broker."""
        tables = re.split(r"(?m)^(?=\[)", text)
        kept = "".join(each for each in tables if each.startswith(("[hosts.", "[apps.memories")))
        assert kept.count('broker = "redis"') == 1
        return kept.replace('broker = "redis"', 'broker = "rabbitmq"')

    with standing("rabbit", WARM) as host:
        project = Project(tmp_path_factory.mktemp("rabbit"), host).demo(rabbit)
        project.deploy()
        yield project


def test_celery_speaks_to_rabbitmq(site: Project) -> None:
    said = site.host.said("rabbitmqctl", "-q", "list_queues", "-p", "memories", "name", "consumers").splitlines()
    assert re.search(r"^celery\s+1$", "\n".join(said), re.MULTILINE), said
    assert "redis" not in site.host.said("ps", "-u", "memories", "-o", "args")


def test_a_deploy_drops_no_request_and_each_task_runs_once(site: Project) -> None:
    """The promise of RabbitMQ with `acks_late`: what a killed worker held goes to another one at once.

    No worker is killed here, so each task runs exactly once.
    """
    site.host.said("/usr/local/lib/deploykit/in-app", "memories", "python", "manage.py", "seed")
    queued.through_a_deploy(site)


def test_what_a_killed_worker_held_is_done_by_the_next(site: Project) -> None:
    host = site.host
    ids = queued.queue(host, 30)
    host.sh("pkill -KILL -u memories -f 'celery -A config [w]orker'")  # all of it; supervisor starts it again
    times = queued.all_ran(host, ids)
    assert times, "some were lost with the worker"
    # Only what it was at may have been done twice.
    assert sum(times[each] > 1 for each in ids) <= 4, times
