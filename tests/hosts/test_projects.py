"""A project that nobody here wrote, with a worker: what the released `wooify` makes, by the configuration in the docs.

Wagtail's is in test_wagtail.py; larger ones, which take their minutes, are in slow/.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import known
from .site import Project, eventually
from .test_main_job import token

JOBS = "jobs.example"
SCRIPT = """\
import argparse

parser = argparse.ArgumentParser(description="Greets somebody.")
parser.add_argument("--name", default="world")
print("hello,", parser.parse_args().name)
"""


@pytest.fixture(scope="module")
def jobs(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    base = tmp_path_factory.mktemp("wooey")
    folder = base / "project"
    folder.mkdir()
    subprocess.run([sys.executable, "-m", "venv", str(base / "venv")], check=True)
    programs = base / "venv/bin"
    subprocess.run([str(programs / "pip"), "install", "--quiet", "wooey"], check=True)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    subprocess.run(["wooify", "-p", "jobs"], check=True, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    with known.deployed("Wooey", folder, "woo") as project:
        yield project


def test_a_second_deploy_changes_nothing(jobs: Project) -> None:
    jobs.settled()


def test_its_page_and_stylesheets_are_served(jobs: Project) -> None:
    page = jobs.host.curl(JOBS)
    assert page.status == 200, page
    sheets = re.findall(r'href="(/static/[^"]+\.css)"', page.text)
    assert sheets, page.text
    assert {jobs.host.curl(JOBS, sheet).status for sheet in sheets} == {200}


def test_its_worker_runs_a_script_that_a_visitor_asks_for(jobs: Project, tmp_path: Path) -> None:
    host = jobs.host
    host.machine.run("sh", "-c", "cat >/srv/jobs/data/greet.py", stdin=SCRIPT.encode())
    host.sh("/usr/local/lib/deploykit/in-app jobs python manage.py addscript /srv/jobs/data/greet.py")
    jar = ("--cookie-jar", str(tmp_path / "jar"), "--cookie", str(tmp_path / "jar"))
    secret = token(host.curl(JOBS, "/scripts/greet/", *jar).text)
    fields = f"csrfmiddlewaretoken={secret}&wooey_type=1&wooey_parser=1&1-name=reader&job_name=first"
    sent = host.curl(JOBS, "/scripts/greet/", *jar, "--data", fields)
    assert '"valid": true' in sent.text, sent
    state = "SELECT status, stdout FROM wooey_wooeyjob"
    assert eventually(lambda: host.psql("jobs", state).startswith("completed"), 30), host.psql("jobs", state)
    assert host.psql("jobs", state) == "completed|hello, reader"
    log = host.said("cat", "/var/log/deploykit/jobs-a.worker-1.log")
    assert log.count("wooey.tasks.submit_script[") == 2, log  # received, succeeded
