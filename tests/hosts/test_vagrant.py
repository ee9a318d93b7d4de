"""The main job on a Vagrant machine, as somebody does it who has only the Vagrantfile. The judges are curl and psql."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from deploykit import sandbox
from deploykit.sandbox import BASE

from . import conftest, machines, tiny
from .site import MEMORIES, Host, Project

pytestmark = pytest.mark.only("vagrant", "about Vagrant itself")

TINY = "tiny.example"
TOML = """\
[hosts.web1]
vagrant = "../vagrant"

[apps.tiny]
source = "tiny"
domains = ["tiny.example"]
"""


@dataclass
class Job:
    """The folder of the Vagrantfile, the project beside it, and the machine's eyes once it is up."""

    folder: machines.Folder
    project: Project
    eyes: Host | None = None

    @property
    def host(self) -> Host:
        assert self.eyes is not None, "the test that boots it has failed"
        return self.eyes


@pytest.fixture(scope="module")
def job(prepared: None) -> Iterator[Job]:
    with machines.vagrantfile(conftest.unique("job"), BASE) as folder:
        place = folder.path.parent / "project"
        place.mkdir()
        project = Project(place, None)  # type: ignore[arg-type] # there is no host yet
        tiny.write(place / "tiny")
        project.example("memories")
        project.write(TOML)
        yield Job(folder, project)


def test_every_provider_is_written_without_mistakes(job: Job) -> None:
    """With Docker all of it is checked; of others, whose programs are not here, that their blocks can be read."""
    assert "validated successfully" in job.folder.vagrant("validate").stdout
    done = subprocess.run(
        ["vagrant", "validate", "--ignore-provider"],
        env={**os.environ, "VAGRANT_DEFAULT_PROVIDER": "virtualbox"},
        cwd=job.folder.path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "validated successfully" in done.stdout, done.stdout + done.stderr


def test_what_stands_in_the_way_is_said(job: Job) -> None:
    ran = job.project.fab("deploy", "--host", "web1")
    assert ran.status == 1 and "host web1: the Vagrant machine web1 is not running" in ran.stderr, ran.text
    assert f"start it with: cd {job.folder.path} && vagrant up web1" in ran.stderr
    job.project.edit("deploykit.toml", '"../vagrant"', '{ folder = "../vagrant", machine = "web9" }')
    ran = job.project.fab("deploy", "--host", "web1")
    assert ran.status == 1 and "host web1: there is no machine web9 in " in ran.stderr, ran.text
    assert "machines there: web1, web2, db1" in ran.stderr
    job.project.write(TOML)


def test_up_and_deploy(job: Job) -> None:
    job.folder.vagrant("up")
    states = job.folder.vagrant("status").stdout
    assert states.count("running (") == 1, states  # web1; the others on request
    job.eyes = job.project.host = Host(machines.provisioned(job.folder, "web1"))
    if job.folder.env["VAGRANT_DEFAULT_PROVIDER"] != "lxc":  # its machines meet on its own bridge
        assert job.host.address == f"{job.folder.network}.11"
    job.project.deploy("--host", "web1")
    assert "version 1" in job.host.curl(TINY).text
    assert job.host.psql("tiny", "SELECT count(*) FROM notes_note") == "0"


def test_an_app_is_added(job: Job) -> None:
    ran = job.project.fab("add-app", "memories", "--source", "examples/memories", "--domain", MEMORIES)
    assert ran.status == 0, ran.text
    job.project.deploy("--host", "web1")
    job.host.up(MEMORIES)
    assert "version 1" in job.host.curl(TINY).text
    assert int(job.host.psql("memories", "SELECT count(*) FROM django_migrations")) > 0


def test_a_second_deploy_changes_nothing(job: Job) -> None:
    before = job.host.pids()
    ran = job.project.deploy("--host", "web1")
    assert ran.last == "nothing to do", ran.text
    job.project.settled()
    assert job.host.pids() == before


def test_another_machine_is_reached(job: Job) -> None:
    """On request, and on the same private network; lxc's machines have their bridge's addresses."""
    job.folder.vagrant("up", "web2")
    found = job.folder.vagrant("ssh", "web2", "--command", "hostname -I").stdout.split()
    address = f"{job.folder.network}.12"
    if job.folder.env["VAGRANT_DEFAULT_PROVIDER"] == "lxc":
        address = found[0]
    assert address in found
    assert "1 received" in job.host.said("ping", "-c", "1", "-W", "5", address)


def test_all_is_there_after_a_reload(job: Job) -> None:
    job.host.psql("tiny", "INSERT INTO notes_note (text) VALUES ('kept')")
    boot = job.host.said("cat", "/proc/1/stat").split()[21]  # when PID 1 began
    job.host.reboot()
    assert job.host.said("cat", "/proc/1/stat").split()[21] != boot
    job.host.up(MEMORIES, seconds=30)
    assert "version 1" in job.host.curl(TINY).text
    assert job.host.psql("tiny", "SELECT text FROM notes_note") == "kept"
    job.project.settled()


def test_destroy(job: Job) -> None:
    job.folder.vagrant("destroy", "--force")
    assert "running (" not in job.folder.vagrant("status").stdout
    assert "version 1" not in job.host.curl(TINY).text
    ran = job.project.fab("plan", "--host", "web1")
    assert ran.status == 1 and "the Vagrant machine web1 is not running" in ran.stderr, ran.text


@pytest.fixture
def closed(prepared: None) -> Iterator[Callable[..., str]]:
    """Docker as it usually is: it lets nothing through that is not its own. Call it to ask iptables."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    program = shutil.which("iptables", path=path)
    if program is None or os.environ.get("VAGRANT_DEFAULT_PROVIDER", "docker") != "docker":
        pytest.skip("no Docker here")

    def iptables(*words: str) -> str:
        return subprocess.run([program, "-w", *words], capture_output=True, text=True, check=True).stdout

    policy = iptables("-S", "FORWARD").split()[2]
    iptables("-P", "FORWARD", "DROP")
    yield iptables
    iptables("-P", "FORWARD", policy)


def test_a_sandbox_beside_docker_reaches_out(closed: Callable[..., str]) -> None:
    name = conftest.unique("beside")
    try:
        sandbox.up(name)
        sandbox.run(name, "apt-get", "-o", "APT::Update::Error-Mode=any", "update", seconds=60)
    finally:
        sandbox.down(name)
    if not sandbox.every():
        assert "dk0" not in closed("-S", "DOCKER-USER")
