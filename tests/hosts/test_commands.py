"""The everyday commands on a real host: manage, shell, run, logs, restart, secrets; on terminals and in pipes."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from . import tiny
from .conftest import WARM
from .site import Host, Project, eventually, standing
from .typed import Typist

TINY = "tiny.example"
URLS = "tiny/tiny/urls.py"
#: What a shell, sudo, ssh or our own code could stumble over.
DIFFICULT = """a b 'c' "d" $HOME `id` \\ * ; & | < > # ! ~ %s é\tline\nend"""

_WORK = """\
import os, signal, sys, time

from django.core.management.base import BaseCommand


class Command(BaseCommand):
    def handle(self, **options):
        self.ending = False
        signal.signal(signal.SIGTERM, self.end)
        print(f"worker of {os.environ['DEPLOYKIT_RELEASE']} begins, pid {os.getpid()}", flush=True)
        while not self.ending:
            time.sleep(0.05)
        print("worker ends in order", flush=True)

    def end(self, number, frame):
        self.ending = True
"""

_ECHO = """\
import json, sys

from django.core.management.base import BaseCommand


class Command(BaseCommand):
    def add_arguments(self, parser):
        parser.add_argument("words", nargs="*")

    def handle(self, words, **options):
        print(json.dumps(words))
"""

_URLS = """\
import os, sys

from django.http import HttpResponse
from django.urls import path


def home(request):
    return HttpResponse(f"version 1, token {os.environ.get('TOKEN', '')}, pid {os.getppid()}")


def say(request):
    print("said", request.GET["words"], file=sys.stderr, flush=True)
    return HttpResponse("said")


urlpatterns = [path("", home), path("say", say)]
"""


@pytest.fixture(scope="module")
def site(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with standing("cmd", WARM) as host:
        project = Project(tmp_path_factory.mktemp("commands"), host)
        tiny.write(project.folder / "tiny")
        for name, text in (("work", _WORK), ("echo", _ECHO), ("__init__", "")):
            place = project.folder / f"tiny/notes/management/commands/{name}.py"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        (project.folder / "tiny/notes/management/__init__.py").touch()
        (project.folder / URLS).write_text(_URLS)
        project.edit(
            "tiny/tiny/settings.py", '["notes"]', '["django.contrib.auth", "django.contrib.contenttypes", "notes"]'
        )
        project.write(
            f'{host.table}\n[apps.tiny]\nsource = "tiny"\ndomains = ["{TINY}"]\n\n'
            '[apps.tiny.processes.worker]\ncommand = "python manage.py work"\nsteady = 1\n\n'
            '[apps.tiny.schedule.nightly]\ncommand = "echo good night"\nat = "03:00"\n'
        )
        before = project.fab("run", "--cmd", "id")
        assert before.status == 1 and "tiny is not deployed there" in before.stderr and "fab deploy" in before.stderr
        project.first = project.fab("deploy")
        yield project


@pytest.fixture(scope="module")
def host(site: Project) -> Host:
    assert site.first is not None
    assert site.first.status == 0, site.first.text
    return site.host


def typed(site: Project, *arguments: str) -> Typist:
    return Typist(*site.command(*arguments), site.folder)


def slot(host: Host) -> str:
    return host.said("readlink", "/run/deploykit/tiny/live.sock").removesuffix(".sock")


# -- with a terminal -----------------------------------------------------------------------------------------------


def test_createsuperuser_asks_on_a_terminal(site: Project, host: Host) -> None:
    with typed(site, "manage", "--app", "tiny", "--cmd", "createsuperuser") as fab:
        fab.answers("Username", "anna")
        fab.answers("Email address:", "anna@example.com")
        fab.answers("Password:", "correct horse battery")
        fab.answers("Password (again):", "correct horse battery")
        assert fab.ends() == 0, fab.said
    assert "correct horse" not in fab.said
    assert host.psql("tiny", "SELECT username, is_superuser FROM auth_user") == "anna|t"


def test_a_shell_has_a_window_and_ctrl_c(site: Project, host: Host) -> None:
    with typed(site, "shell", "--app", "tiny", "--bash") as fab:
        fab.type("stty size; whoami; pwd; tty; echo $TERM $DJANGO_SETTINGS_MODULE\r")
        fab.sees("24 80")
        fab.sees("tiny")
        fab.sees(f"/srv/tiny/releases/{host.said('readlink', '/srv/tiny/live').rpartition('/')[2]}/code")
        fab.sees("/dev/pts/")
        fab.sees("xterm tiny.settings")
        fab.resize(132, 50)
        time.sleep(0.5)
        fab.type("stty size\r")
        fab.sees("50 132")
        fab.type("sleep 100\r")
        fab.sees("sleep 100")
        time.sleep(0.5)
        fab.type("\x03echo sti''ll here\r")
        fab.sees("still here", 5)
        fab.type("exit 7\r")
        assert fab.ends() == 7


def test_django_s_shell_is_a_shell(site: Project, host: Host) -> None:
    with typed(site, "shell") as fab:
        fab.sees(">>> ")
        fab.type("from notes.models import Note; print(40 + 2, Note.objects.count())\r")
        fab.sees("42 0")
        fab.sees(">>> ")  # between two lines Ctrl-D is the terminal's own, and lost when the next one is read
        fab.type("\x04")
        assert fab.ends() == 0
    with typed(site, "shell", "--bash") as fab:  # a session that is stuck is left as in ssh
        fab.type("stty raw -echo; echo rea''dy; cat\r")
        fab.sees("ready")
        fab.type("\r~.")
        assert fab.ends(10) == 128 + signal.SIGHUP
    assert eventually(lambda: host.run("pgrep", "-u", "tiny", "bash", check=False).returncode == 1, 5)


# -- without -------------------------------------------------------------------------------------------------------


def test_what_is_piped_in_arrives_and_what_comes_out_is_unchanged(site: Project, host: Host) -> None:
    ran = site.fab("shell", stdin="from notes.models import Note\nprint(40 + 2, Note.objects.count())\n")
    assert (ran.status, ran.last) == (0, "42 0") and "Traceback" not in ran.text, ran.text
    many = "".join(f"line {number}\n" for number in range(200_000))  # more than any window or buffer on the way
    ran = site.fab("run", "--cmd", "cat; echo done >&2", stdin=many)
    assert (ran.status, ran.stderr) == (0, "done\n") and ran.stdout == many
    assert site.fab("run", "--cmd", "test -t 0 || test -t 1 || exit 9").status == 9
    argv, env = site.command("run", "--cmd", "yes")
    with subprocess.Popen(argv, cwd=site.folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as child:  # fmt: skip
        assert child.stdout is not None and child.stderr is not None
        assert child.stdout.read(4) == b"y\ny\n"
        child.stdout.close()
        assert (child.stderr.read(), child.wait(20)) == (b"", 141)
    assert eventually(lambda: host.run("pgrep", "-u", "tiny", "-x", "yes", check=False).returncode == 1, 5)


def test_exit_status_and_words(site: Project) -> None:
    assert site.fab("run", "--cmd", "exit 5").status == 5
    assert site.fab("run", "--cmd", "kill -9 $$").status == 137
    assert site.fab("manage", "--cmd", "nonsense").status == 1
    ran = site.fab("manage", "--cmd", f"echo {shlex.quote(DIFFICULT)} '' \"two words\" $HOME")
    assert json.loads(ran.stdout) == [DIFFICULT, "", "two words", "$HOME"], ran.text
    ran = site.fab(
        "run", "--cmd", f"python -c 'import os, sys; print(sys.argv[1] + os.getcwd())' {shlex.quote(DIFFICULT)}"
    )
    assert ran.stdout.startswith(f"{DIFFICULT}/srv/tiny/releases/"), ran.text
    ran = site.fab("run", "--cmd", "echo $USER $HOME; id -un; umask")
    assert ran.stdout.split()[:3] == ["tiny", "/srv/tiny/home", "tiny"], ran.text
    for words, complaint in (
        (("run", "--app", "blog", "--cmd", "id"), 'there is no app "blog"'),
        (("manage", "--cmd", "shell 'x"), "close the quotes"),
        (("run", "--app", "tiny,tiny", "--cmd", "id"), "one at a time"),
        (("run", "--host", f"{site.host.name},other", "--cmd", "id"), "one at a time"),
    ):
        ran = site.fab(*words)
        assert ran.status == 1 and complaint in ran.stderr, ran.text


def test_ctrl_c_without_a_terminal_ends_it_there_too(site: Project, host: Host) -> None:
    argv, env = site.command("run", "--cmd", "echo begun; exec sleep 1234")
    with subprocess.Popen(argv, cwd=site.folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as child:  # fmt: skip
        assert child.stdout is not None and child.stderr is not None
        assert child.stdout.readline() == b"begun\n"
        child.send_signal(signal.SIGINT)
        assert (child.stderr.read(), child.wait(20)) == (b"", 130)
    assert eventually(lambda: host.run("pgrep", "-u", "tiny", "-x", "sleep", check=False).returncode == 1, 5)


# -- by a sudoer ---------------------------------------------------------------------------------------------------


def test_a_sudoer_with_a_password(site: Project, host: Host) -> None:
    """`asker` is a user of every test machine's."""
    host.machine.admit(site.home)
    there = ("--host", f"asker@{host.address}", "--app", "tiny")
    with typed(site, "run", *there, "--cmd", 'id -un; tty; stty size; read x; echo "got $x"; exit 3') as fab:
        fab.answers("password for asker:", "asker")
        fab.sees("tiny")
        fab.sees("/dev/pts/")
        fab.sees("24 80")
        fab.type("so\r")
        fab.sees("got so")
        assert fab.ends() == 3
    # Standard output is a file: no terminal there, and the password is asked for here.
    argv, env = site.command("run", *there, "--cmd", "cat; id -un; test -t 1 || echo no terminal")
    piped = ["sh", "-c", 'exec "$@" > out', "sh", *argv]
    with Typist(["/bin/sh", *piped[1:]], env, site.folder) as fab:
        fab.answers("sudo password of asker", "asker")
        time.sleep(1)
        fab.type("typed line\r\x04")
        assert fab.ends() == 0, fab.said
    assert (site.folder / "out").read_text() == "typed line\ntiny\nno terminal\n"
    ran = site.fab("run", *there, "--cmd", "id", stdin="x")
    assert ran.status == 1 and "a password is needed" in ran.stderr, ran.text
    with typed(site, "logs", *there, "--lines", "5") as fab:
        fab.answers("sudo password of asker", "asker")
        assert fab.ends() == 0 and "Booting worker" in fab.said, fab.said


# -- logs ----------------------------------------------------------------------------------------------------------


def test_logs_follow_over_a_deploy(site: Project, host: Host) -> None:
    with (
        typed(site, "logs", "--follow", "--lines", "3") as web,
        typed(site, "logs", "--follow", "--process", "worker") as worker,
    ):
        worker.sees("begins, pid ")
        web.sees("")
        time.sleep(3)
        assert host.curl(TINY, "/say?words=before").status == 200
        web.sees("said before")
        before = slot(host)
        site.edit(URLS, "version 1", "version 2")
        site.deploy()
        assert slot(host) != before and "version 2" in host.curl(TINY).text
        host.curl(TINY, "/say?words=after%1b%5b31mred")
        web.sees("said after")
        web.sees("red")
        assert "\x1b" not in web.said
        worker.sees("begins, pid ")
        worker.sees("worker ends in order")
        # supervisor puts a log that is full aside, and begins another
        name = f"/var/log/deploykit/tiny-{slot(host)}.log"
        host.sh(f"mv {name} {name}.1; echo new >> {name}")
        web.sees("new")
        for each in (web, worker):
            each.type("\x03")
            assert each.ends(10) == 0
            assert "Traceback" not in each.said and "interrupted" not in each.said
    assert eventually(lambda: "logs" not in host.said("sh", "-c", "ps -eo args | grep [d]eploykit/agent || true"), 5)


def test_logs_of_all_kinds(site: Project, host: Host) -> None:
    host.curl(TINY, "/say?words=hello")
    ran = site.fab("logs", "--nginx", "--lines", "20")
    assert ran.status == 0 and "access | " in ran.stdout and "GET /say?words=hello" in ran.stdout, ran.text
    host.sh("systemctl start deploykit-tiny.nightly.service")
    ran = site.fab("logs", "--process", "nightly")
    assert ran.status == 0 and "good night" in ran.stdout, ran.text
    assert len(site.fab("logs", "--nginx", "--lines", "1").stdout.splitlines()) <= 2
    assert site.fab("logs", "--nginx", "--since", "1d").stdout.count("GET /say") >= 2
    assert site.fab("logs", "--nginx", "--since", "2100-01-01").stdout == ""
    ran = site.fab("logs", "--process", "wroker")
    assert ran.status == 1 and "tiny has no process and no schedule wroker" in ran.stderr, ran.text
    assert "web, worker, nightly" in ran.stderr
    ran = site.fab("logs", "--since", "soon")
    assert ran.status == 1 and "--since" in ran.stderr


# -- restart -------------------------------------------------------------------------------------------------------


def test_a_restart_drops_nothing(site: Project, host: Host) -> None:
    before, programs, release = slot(host), host.programs(), host.said("readlink", "/srv/tiny/live")
    with host.visited(TINY) as lost:
        ran = site.fab("restart", "--app", "tiny")
    assert ran.status == 0 and "tiny: runs anew" in ran.stdout, ran.text
    assert lost == []
    assert slot(host) != before and host.said("readlink", "/srv/tiny/live") == release
    assert not set(host.programs().values()) & set(programs.values())
    assert set(host.programs()) == {f"tiny-{slot(host)}", f"tiny-{slot(host)}.worker-1"}
    site.settled()


def test_one_process_is_restarted_alone(site: Project, host: Host) -> None:
    before = host.programs()
    ran = site.fab("restart", "--process", "worker")
    assert ran.status == 0 and "worker-1 runs anew" in ran.stdout, ran.text
    after = host.programs()
    web, worker = f"tiny-{slot(host)}", f"tiny-{slot(host)}.worker-1"
    assert after[web] == before[web] and after[worker] != before[worker] and len(after) == 2
    assert host.said("tail", "-n", "2", f"/var/log/deploykit/{worker}.log").startswith("worker ends in order")
    ran = site.fab("restart", "--process", "wroker")
    assert ran.status == 1 and "tiny has no process wroker" in ran.stderr and "web, worker" in ran.stderr
    site.settled()


# -- secrets -------------------------------------------------------------------------------------------------------


def test_a_secret_is_asked_for_and_listed(site: Project, host: Host) -> None:
    site.write(site.toml.read_text() + '\n[apps.tiny.env]\nTOKEN = { secret = "TOKEN" }\n')
    for command in ("plan", "deploy"):
        ran = site.fab(command)
        assert ran.status == 1 and "fab secrets set --app tiny --name TOKEN" in ran.stderr, ran.text
    ran = site.fab("secrets", "list")
    assert "missing: fab secrets set --app tiny --name TOKEN" in ran.stdout, ran.text
    with typed(site, "secrets", "set", "--name", "TOKEN") as fab:
        fab.answers("value of TOKEN", "hush$HOME'x")
        assert fab.ends() == 0 and "hush" not in fab.said
    assert site.fab("secrets", "set", "--name", "SPARE", stdin="x\n").status == 0
    listed = [line.split() for line in site.fab("secrets", "list").stdout.splitlines()]
    assert [line[-1] for line in listed if line[0] in ("SPARE", "TOKEN")] == ["no", "yes"], listed
    site.deploy()
    assert "token hush$HOME'x," in host.curl(TINY).text
    # A new value comes with a restart as well as with a deploy.
    assert site.fab("secrets", "set", "--name", "TOKEN", stdin="other").status == 0
    assert site.fab("restart").status == 0
    assert "token other," in host.curl(TINY).text
    site.settled()
    # What the settings need and nobody sets is told before it fails there.
    settings = site.folder / "tiny/tiny/settings.py"
    text = settings.read_text()
    settings.write_text(text + 'NEEDED, MAYBE = os.environ["NEEDED"], os.environ.get("MAYBE")\n')
    said = site.fab("plan").stdout
    assert "warning: tiny: the settings read NEEDED, which nobody sets" in said and "MAYBE" not in said, said
    assert "if they are set: MAYBE" in site.fab("plan", "--verbose").stdout
    settings.write_text(text)
    site.settled()
    for bad in (("--name", "A B"), ("--name", "")):
        assert site.fab("secrets", "set", *bad, stdin="x").status == 1
    assert "no value" in site.fab("secrets", "set", "--name", "EMPTY", stdin="\n").stderr
