"""Weblate: packages that are compiled against libraries of the system's, extensions of PostgreSQL, Celery with beat."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from deploykit.sandbox import Image

from .. import known
from ..conftest import WARM
from ..site import Project, eventually

TRANSLATE = "translate.example"


@pytest.fixture(scope="module")
def translate(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    image = Image(suite="trixie", packages=WARM.packages)
    with known.deployed("Weblate", tmp_path_factory.mktemp("weblate"), "wbl", image=image) as project:
        yield project


def test_a_second_deploy_changes_nothing(translate: Project) -> None:
    translate.settled()


def test_static_files_out_of_its_cache_folder_are_served(translate: Project) -> None:
    page = translate.host.curl(TRANSLATE)
    assert page.status == 200, page
    files = re.findall(r'"(/static/[^"]+\.(?:css|js))"', page.text)
    assert files, page.text
    assert {translate.host.curl(TRANSLATE, file).status for file in files} == {200}


def test_its_extensions_are_there(translate: Project) -> None:
    found = translate.host.psql("translate", "SELECT extname FROM pg_extension").split()
    assert {"pg_trgm", "btree_gin"} <= set(found)


def test_the_one_beat_gives_the_worker_its_heartbeats(translate: Project) -> None:
    host = translate.host
    beats = host.sh("ps -eo args | grep -c '[c]elery -A weblate.utils beat'")
    assert beats == "1"
    log = "/var/log/deploykit/translate-a.worker-1.log"
    assert eventually(lambda: "heartbeat[" in host.said("cat", log), 180), host.said("tail", "-n50", log)
    answer = host.said(
        "/usr/local/lib/deploykit/in-app", "translate", "weblate", "shell", "-c",
        "from weblate.utils.tasks import ping; print('worker says', ping.delay().get(timeout=60))",
    )  # fmt: skip
    assert "worker says" in answer
