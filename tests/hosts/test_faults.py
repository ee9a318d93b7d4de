"""Whatever is killed, whenever: the same command again finishes, and the host is as if nothing had happened."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from . import tiny
from .conftest import WARM
from .site import Host, Project, Ran, eventually, standing

PAGE = "tiny.example"

#: Waits on the host for a text in the events of a run that is not yet among those there, then for some seconds more,
#: and kills the process that holds the lock. Prints what it killed.
ASSASSIN = """
import glob, json, os, sys, time
text, pause, *old = sys.argv[1:]
deadline = time.monotonic() + 45
while time.monotonic() < deadline:
    for path in set(glob.glob("/var/lib/deploykit/runs/*.jsonl")) - set(old):
        if text in open(path).read():
            time.sleep(float(pause))
            pid = json.load(open("/var/lib/deploykit/lock"))["pid"]
            os.kill(pid, 9)
            print("killed", pid)
            sys.exit()
    time.sleep(0.002)
sys.exit(f"no run said {text}")
"""

#: All that is on a host and means something: a line a file, a line a program that runs.
LISTING = r"""
import hashlib, os, pwd, grp, re, stat, subprocess
own = ("/etc/hostname", "/etc/hosts", "/etc/machine-id", "/etc/resolv.conf", "/etc/systemd/network/",
       "/etc/ssh/ssh_host", "/etc/passwd-", "/etc/group-", "/etc/shadow", "/etc/gshadow", "/etc/subuid-",
       "/etc/subgid-", "/etc/.pwd.lock")
tops = ("/etc", "/srv", "/opt", "/usr/local", "/run/deploykit", "/var/backups/deploykit", "/var/log/deploykit")
for top in tops:
    for folder, folders, files in os.walk(top):
        folders.sort()
        for name in sorted([*files, *folders]):
            path = os.path.join(folder, name)
            if path.startswith(own) or "__pycache__" in path or "/home/.cache" in path:
                continue
            found = os.lstat(path)
            kind = stat.filemode(found.st_mode)
            text = ""
            if stat.S_ISLNK(found.st_mode):
                text = os.readlink(path)
            elif stat.S_ISREG(found.st_mode) and not top.startswith("/var"):
                data = open(path, "rb").read()
                data = re.sub(rb"SECRET_KEY=\S+", b"SECRET_KEY", data)
                data = re.sub(rb'"made": ?[0-9.]+', b"made", data)
                data = re.sub(rb'(, ?\d+), ?\d{18,}\]', rb"\1]", data)  # the times of a release's files
                text = "" if path.endswith(".pid") else hashlib.sha256(data).hexdigest()[:16]
            path = re.sub(r"\d{8}T\d{6}Z", "TIME", path)
            print(kind, pwd.getpwuid(found.st_uid).pw_name, grp.getgrgid(found.st_gid).gr_name, path, text)
programs = subprocess.run(["ps", "-eo", "user:20,args"], capture_output=True, text=True).stdout.splitlines()[1:]
shown = set()
for line in programs:
    user, _, args = line.partition(" ")
    args = args.strip()
    if user == "postgres" and not args.startswith("/usr/lib/postgresql"):
        args = re.sub(r"\d+", "N", args)
        if "tiny" in args or "autovacuum worker" in args:
            continue  # a connection of an app's worker, or an hourly job
    if not re.search(r"sshd|systemd-|\(sd-pam\)|agetty|ps -eo|python3 -c|^\[", args):
        shown.add(f"{user} {args}")
print("\n".join(sorted(shown)))
for unit in ("--state=running", "--failed"):
    command = ["systemctl", "list-units", "--plain", "--no-legend", "--type=service", unit]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    print(unit, " ".join(sorted(w for w in (line.split()[0] for line in lines)
                                if not w.startswith(("user", "systemd-", "session", "man-db", "apt-", "dpkg-")))))
print("pending", os.listdir("/var/lib/deploykit/pending") if os.path.isdir("/var/lib/deploykit/pending") else [])
"""


def state(host: Host) -> list[str]:
    """What `LISTING` sees, once the programs have settled, and what the database holds."""
    rows = host.psql("tiny", "SELECT app, name FROM django_migrations ORDER BY id")
    columns = host.psql("tiny", "SELECT column_name FROM information_schema.columns WHERE table_name = 'notes_note'")
    ours = json.loads(host.said("cat", "/var/lib/deploykit/manifest.json"))
    keys = sorted(json.dumps(each) for each in ours.items())
    return [*host.said("python3", "-c", LISTING).splitlines(), rows, columns, *keys]


def same(found: list[str], wanted: list[str]) -> None:
    left, right = set(found) - set(wanted), set(wanted) - set(found)
    assert not left and not right, "only here:\n" + "\n".join(sorted(left)) + "\nmissing:\n" + "\n".join(sorted(right))


def second(project: Project) -> None:
    """The next version of the app: a new column, a new page, one more requirement."""
    project.edit("tiny/tiny/urls.py", "version 1", "version 2")
    project.edit(
        "tiny/notes/models.py",
        "text = models.TextField()",
        "text = models.TextField()\n    n = models.IntegerField(default=0)",
    )
    project.edit("tiny/requirements.txt", "dj-database-url\n", "dj-database-url\nsix\n")
    (project.folder / "tiny/notes/migrations/0002_n.py").write_text(
        "import time\nfrom django.db import migrations, models\n\n\n"
        "class Migration(migrations.Migration):\n    dependencies = [('notes', '0001_initial')]\n"
        "    operations = [\n        migrations.RunPython(lambda apps, editor: time.sleep(0.5)),\n"
        "        migrations.AddField('note', 'n', models.IntegerField(default=0)),\n    ]\n"
    )


def project(folder: Path, host: Host) -> Project:
    folder.mkdir(exist_ok=True)
    made = Project(folder, host)
    tiny.write(folder / "tiny")
    # long enough that a second `fab` comes while it goes on
    slow = "operations = [migrations.RunPython(lambda apps, editor: __import__('time').sleep(3)),"
    made.edit("tiny/notes/migrations/0001_initial.py", "operations = [", slow)
    made.write(f'{host.table}\n[apps.tiny]\nsource = "tiny"\ndomains = ["{PAGE}"]\n')
    return made


@dataclass
class Undisturbed:
    """How a host is after the first deploy, and after the second, when nobody disturbs them."""

    first: list[str]
    second: list[str]


@pytest.fixture(scope="module")
def undisturbed(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    with standing("calm", WARM) as host:
        calm = project(tmp_path_factory.mktemp("calm"), host)
        calm.deploy()
        first = state(host)
        assert len(first) > 200 and any("/srv/tiny/live" in line for line in first)
        second(calm)
        calm.deploy()
        return Undisturbed(first, state(host))


def killed_at(project: Project, *texts: str) -> None:
    """`fab deploy`, killed by signal 9 as soon as a line of its output has one of these texts."""
    argv, env = project.command("deploy")
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        cwd=project.folder, env=env,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        said = []
        for line in child.stdout:
            said.append(line)
            if any(text in line for text in texts):
                child.kill()
                return
    raise AssertionError(f"none of {texts} was said: {''.join(said)}")


@contextlib.contextmanager
def held(host: Host) -> Iterator[None]:
    """The run on the host stands still meanwhile: what is asked about it is asked while it is there."""
    pid = str(json.loads(host.said("cat", "/var/lib/deploykit/lock"))["pid"])
    host.run("kill", "-STOP", pid)
    try:
        yield
    finally:
        host.run("kill", "-CONT", pid)


def attached_to(project: Project) -> Ran:
    """`fab deploy` that finds the same deploy at work, and stays with it to its end."""
    argv, env = project.command("deploy")
    with contextlib.ExitStack() as still:
        still.enter_context(held(project.host))
        late = threading.Timer(60, still.close)  # should it wait for the run without a word
        late.start()
        with subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            cwd=project.folder, env=env,
        ) as child:  # fmt: skip
            assert child.stdout is not None
            said = []
            for line in child.stdout:
                said.append(line)
                if "deploys the same since" in line:
                    late.cancel()
                    still.close()
        late.cancel()
    return Ran(child.returncode, "".join(said), "", 0)


def busy(host: Host) -> bool:
    """Whether a run holds the lock."""
    return host.run("flock", "--nonblock", "/var/lib/deploykit/lock", "true", check=False).returncode != 0


def version(host: Host) -> str:
    found = re.search(r"version (\d)", host.curl(PAGE).text)
    return found[1] if found else ""


def without_agent(host: Host) -> None:
    """No process of deploykit's is left on the host."""
    assert eventually(lambda: "/var/lib/deploykit" not in host.said("ps", "-eo", "args"), 5)


@pytest.fixture(scope="module")
def killed_here(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with standing("fab", WARM) as host:
        yield project(tmp_path_factory.mktemp("fab"), host)


def test_fab_killed_during_the_first_deploy(killed_here: Project, undisturbed: Undisturbed) -> None:
    host = killed_here.host
    killed_at(killed_here, "plan: ")  # while the source is sent: nothing has begun, so nothing goes on
    for line in ("+ file /etc/", "* ", "tiny: virtualenv", "tiny: migrate"):
        killed_at(killed_here, line)
        assert busy(host), "the run goes on without us"
    attached = attached_to(killed_here)
    assert attached.status == 0 and "deploys the same since" in attached.stdout, attached.text
    assert "tiny: release" in attached.stdout and f"http://{PAGE}/" in attached.stdout
    assert attached.stdout.count("tiny: migrate") == 1, "its progress from the beginning"
    assert version(host) == "1"
    without_agent(host)
    same(state(host), undisturbed.first)
    killed_here.settled()


def test_fab_killed_during_a_deploy_of_code(killed_here: Project, undisturbed: Undisturbed) -> None:
    host = killed_here.host
    second(killed_here)
    killed_at(killed_here, "tiny: virtualenv")
    killed_at(killed_here, "tiny: migrate")
    assert eventually(lambda: not busy(host), 60)
    assert version(host) == "2", "it ended without anybody looking"
    later = killed_here.fab("deploy")
    assert later.status == 0, later.text
    assert re.search(r"the run of \S+@\S+ \(\d{4}-.*\), whose connection was lost, ended well", later.stdout), (
        later.text
    )
    assert later.last == "nothing to do"
    assert "connection was lost" not in killed_here.deploy().text, "it is said once"
    same(state(host), undisturbed.second)


def test_a_run_that_failed_unseen_is_told(killed_here: Project) -> None:
    host = killed_here.host
    killed_here.edit("tiny/tiny/urls.py", "version 2", "version 3")
    place = killed_here.folder / "tiny/tiny/wsgi.py"
    good = place.read_text()
    place.write_text("import time\ntime.sleep(1)\nraise RuntimeError('no such moon')\n")
    killed_at(killed_here, "tiny: start")
    assert eventually(lambda: not busy(host), 60)
    assert version(host) == "2"
    place.write_text(good)
    later = killed_here.fab("deploy")
    assert later.status == 0 and "whose connection was lost, failed" in later.stdout, later.text
    assert "does not start" in later.stdout
    assert version(host) == "3"


def test_another_deploy_at_the_same_time_is_refused(killed_here: Project, tmp_path: Path) -> None:
    host = killed_here.host
    killed_here.edit("tiny/tiny/urls.py", "version 3", "version 4")
    place = killed_here.folder / "tiny/notes/migrations/0003_slow.py"
    place.write_text(
        "import time\nfrom django.db import migrations\n\n\n"
        "class Migration(migrations.Migration):\n    dependencies = [('notes', '0002_n')]\n"
        "    operations = [migrations.RunPython(lambda apps, editor: time.sleep(6))]\n"
    )
    killed_at(killed_here, "tiny: migrate")
    other = project(tmp_path / "other", host)
    with held(host):
        refused, planned = other.fab("deploy"), other.fab("plan")
    assert refused.status == 1, refused
    found = re.search(
        rf"error: host {host.name}: the host is locked: \S+@\S+ has had it for (\d+) s \(apply\)", refused.stderr
    )
    assert found and 0 <= int(found[1]) < 30, refused.text
    assert "wait until it has ended" in refused.stderr
    assert planned.status == 1, planned.text
    attached = attached_to(killed_here)
    assert attached.status == 0, attached.text
    assert "deploys the same since" in attached.stdout and version(host) == "4"


# -- the agent on the host ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed_there(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with standing("agent", WARM) as host:
        yield project(tmp_path_factory.mktemp("agent"), host)


def deploy_and_kill(project: Project, text: str, pause: float = 0) -> str:
    """`fab deploy`, whose worker on the host dies `pause` seconds after an event with `text`; what fab said."""
    said: list[str] = []
    old = project.host.sh("ls /var/lib/deploykit/runs/*.jsonl 2>/dev/null || true").split()
    argv = ("python3", "-c", ASSASSIN, text, str(pause), *old)

    def kill() -> None:
        done = project.host.run(*argv, check=False)
        said.append(done.stdout + done.stderr)

    thread = threading.Thread(target=kill)
    thread.start()
    ran = project.fab("deploy")
    thread.join()
    assert "killed" in said[0], (said, ran.text)
    assert ran.status == 1, ran.text
    assert "was ended from outside before it was done" in ran.stderr and "deploy again: it goes on" in ran.stderr
    return ran.text


def recovered(project: Project, check: Callable[[], None] = lambda: None) -> None:
    ran = project.deploy()
    assert "was cut short; this run finishes it" in ran.stdout, ran.text
    check()
    without_agent(project.host)
    project.settled()


@pytest.mark.parametrize(
    ("text", "pause"),
    [
        ('"event":"changing"', 1.0),  # uv is fetched meanwhile
        ('"name":"virtualenv"', 0.05),
        ('"event":"changing"', 0.0),
        ('"action"', 0.0),
        ('"name":"migrate"', 0.4),
        ('"name":"start"', 0.3),
    ],
)
def test_the_agent_killed_during_the_first_deploy(killed_there: Project, text: str, pause: float) -> None:
    """One after the other on the same host: each run finds what the one before left."""
    deploy_and_kill(killed_there, text, pause)
    assert not busy(killed_there.host)


def test_the_first_deploy_recovers(killed_there: Project, undisturbed: Undisturbed) -> None:
    recovered(killed_there)
    assert version(killed_there.host) == "1"
    same(state(killed_there.host), undisturbed.first)


@pytest.mark.parametrize(
    ("text", "pause"),
    [
        ('"name":"code"', 0.0),
        ('"name":"virtualenv"', 0.2),
        ('"name":"migrate"', 0.3),
        ('"name":"start"', 0.3),
        ('"name":"switch"', 0.0),
    ],
)
def test_the_agent_killed_during_a_deploy_of_code(killed_there: Project, text: str, pause: float) -> None:
    if (killed_there.folder / "tiny/notes/migrations/0002_n.py").exists() is False:
        second(killed_there)
    deploy_and_kill(killed_there, text, pause)
    assert version(killed_there.host) in ("1", "2"), "one of the two serves, always"


def test_the_deploy_of_code_recovers(killed_there: Project, undisturbed: Undisturbed) -> None:
    recovered(killed_there)
    assert version(killed_there.host) == "2"
    same(state(killed_there.host), undisturbed.second)
