"""Processes, schedules, hooks, checks, services and sites in deploykit.toml: what they mean, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.agent.values import Check, Process, Schedule, Service, Web
from deploykit.config import loads
from deploykit.config.processes import calendar
from deploykit.config.project import AppEntry
from deploykit.errors import ConfigError, Problem

APP = '[apps.blog]\nsource = "../blog"\ndomains = ["blog.example"]\n'


def entry(text: str) -> AppEntry:
    return loads(APP + text, Path("/project/deploykit.toml")).apps[0]


def only(text: str) -> Problem:
    with pytest.raises(ConfigError) as caught:
        entry(text)
    assert len(caught.value.problems) == 1, caught.value.problems
    return caught.value.problems[0]


def test_what_may_be_said() -> None:
    found = entry("""
persist = ["uploads/", "./local.json"]
collectstatic = "--ignore *.scss"
migrate = false
broker = "rabbitmq"
cache = "redis"
packages = ["sentry-sdk>=2", "psycopg[binary]"]
apt = ["libmagic1"]
[apps.blog.processes.worker]
command = "celery -A config worker"
count = 3
folder = "."
stop_signal = "INT"
stop_timeout = 600
steady = 2
[apps.blog.processes.live]
asgi = "config.asgi:application"
server = "daphne"
paths = ["/ws/", "/live"]
[apps.blog.schedule.clean]
command = "python manage.py clearsessions"
at = "30 3 * * 1-5"
catch_up = true
[apps.blog.hooks]
after_checkout = ["npm ci", "npm run build"]
first_deploy = "python manage.py loaddata x && echo ${HOME} ${app.name}"
[[apps.blog.checks]]
path = "/api/"
status = [200, 204]
json = { "database.ok" = true, n = 1 }
[[apps.blog.checks]]
command = "true"
[apps.blog.services.sessions]
kind = "redis"
persistent = true
port = 6401
""")
    worker, live = found.processes
    assert worker == Process("worker", "celery -A config worker", 3, "", False, "INT", 600, 2)
    assert live.paths == ("/ws/", "/live")
    assert live.web == Web("asgi", "config.asgi:application", 1, 2, 30, 20, "daphne")
    assert found.schedule == (
        Schedule("clean", "python manage.py clearsessions", "Mon,Tue,Wed,Thu,Fri *-*-* 3:30:00", True),
    )
    assert found.build.commands("after_checkout") == ("npm ci", "npm run build")
    assert (found.build.collectstatic, found.build.migrate) == (("--ignore", "*.scss"), None)
    assert found.build.persist == ("uploads/", "local.json")
    assert found.checks[0] == Check("/api/", statuses=(200, 204), json=(("database.ok", "true"), ("n", "1")))
    assert found.checks[1] == Check(command="true")
    assert found.services == (
        Service("cache", "redis"),
        Service("broker", "rabbitmq"),
        Service("sessions", "redis", persistent=True, port=6401),
    )


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ('[apps.blog.processes.w]\ncount = 2\n', "processes.w.command", "what it runs is missing"),
        ('[apps.blog.processes.w]\ncommand = " "\n', "processes.w.command", "no command"),
        ('[apps.blog.processes.w]\ncommand = "x"\nasgi = "a.b:c"\npaths = ["/w/"]\n', "processes.w", "both"),
        ('[apps.blog.processes.w]\nasgi = "a.b:c"\n', "processes.w.paths", "needs the paths"),
        ('[apps.blog.processes.w]\nasgi = "a/b.py"\npaths = ["/w/"]\n', "processes.w.asgi", "no application"),
        ('[apps.blog.processes.w]\nwsgi = "a.b:c"\nserver = "daphne"\npaths = ["/w/"]\n', "server", "ASGI only"),
        ('[apps.blog.processes.w]\nasgi = "a.b:c"\npaths = ["/w/"]\ncount = 2\n', "count", "`workers`"),
        ('[apps.blog.processes.w]\ncommand = "x"\nonce = true\ncount = 2\n', "count", "exactly once"),
        ('[apps.blog.processes.w]\ncommand = "x"\nstop_signal = "SIGTERM"\n', "stop_signal", "none of the choices"),
        ('[apps.blog.processes.w]\ncommand = "x ${broker.url}"\n', "command", "no reference"),
        ('[apps.blog.processes.w]\ncommand = "x"\nfolder = "../x"\n', "folder", "not inside the source"),
        ('[apps.blog.processes.W]\ncommand = "x"\n', "processes.W", "no name"),
        ('[apps.blog.processes.web]\ncommand = "x"\n', "processes.web", "the app's own web server"),
        ('[apps.blog.schedule.s]\ncommand = "x"\n', "schedule.s.at", "missing"),
        ('[apps.blog.schedule.s]\ncommand = "x"\nat = "whenever"\n', "schedule.s.at", "no time"),
        ('[apps.blog.schedule.s]\ncommand = "x"\nat = "61 * * * *"\n', "schedule.s.at", "no time"),
        ('[apps.blog.hooks]\nafter_lunch = "x"\n', "hooks.after_lunch", "no such key"),
        ('[apps.blog.hooks]\nafter_checkout = ["x", ""]\n', "after_checkout[2]", "no command"),
        ('[[apps.blog.checks]]\nstatus = 200\n', "checks[1].path", "either a path or a command"),
        ('[[apps.blog.checks]]\npath = "/"\ncommand = "x"\n', "checks[1].path", "either"),
        ('[[apps.blog.checks]]\npath = "/"\nstatus = 999\n', "checks[1].status", "no status"),
        ('[[apps.blog.checks]]\ncommand = "x"\ntext = "y"\n', "checks[1].text", "no answer to look at"),
        ('persist = ["../x"]\n', "persist[1]", "not inside the source"),
        ('persist = ["a/", "a/b/"]\n', "persist[2]", "within"),
        ('persist = ["a/b/", "./a//"]\n', "persist[1]", '"a/b/" is within "a/"'),
        ('persist = ["a", "b", "a/"]\n', "persist[3]", "within"),
        ('[apps.blog.services.app]\nkind = "redis"\n', "services.app", "taken"),
        ('[apps.blog.services.x]\nkind = "redis2"\n', "services.x.kind", "none of the choices"),
        ('[apps.blog.services.x]\nkind = "memcached"\npersistent = true\n', "persistent", "only a Redis"),
        ('cache = "redis"\n[apps.blog.services.cache]\nkind = "redis"\n', "services.cache", "short form"),
        ('broker = "kafka"\n', "broker", "none of the choices"),
        ('packages = ["-r x"]\n', "packages[1]", "no requirement"),
        ('apt = ["lib magic"]\n', "apt[1]", "no package's name"),
        ('index = "https://u:p@pypi.example/simple"\n', "index", "would be shown"),
        ('[apps.blog.nginx]\nsnippet = "location / { }}"\n', "nginx.snippet", "braces"),
        ('[apps.blog.nginx.locations."/x"]\nfolder = "dist"\n', "locations", "ends with /"),
        ('[apps.blog.nginx.locations."/x/"]\nprocess = "nobody"\n', "process", "no process"),
        ('[apps.blog.nginx.redirects]\n"old" = "/new"\n', "redirects.old", "no path"),
        ('[apps.blog.nginx.basic_auth]\nanna = "plain"\n', "basic_auth.anna", "does not fit"),
        ('[apps.blog.files]\n"../x" = "y.j2"\n', "files", "no file's name"),
        ('[apps.blog.files]\n"x.json" = { template = "y.j2", pythonpath = true }\n', "files", "no module"),
        ('database = { kind = "sqlite", extensions = ["x"] }\n', "database.extensions", "only PostgreSQL"),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, where: str, words: str) -> None:
    found = only(text)
    assert words in found.what, found
    assert where in f"{found.table}.{found.key}".replace("apps.blog.", ""), found


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("daily", "daily"),
        ("@hourly", "hourly"),
        ("03:30", "03:30"),
        ("Mon..Fri 03:30", "Mon..Fri 03:30"),
        ("*:0/15", "*:0/15"),
        ("*/15 * * * *", " *-*-* *:0/15:00".strip()),
        ("0 4 1 jan,jul *", "*-1,7-1 4:0:00"),
        ("5 8-18/2 * * *", "*-*-* 8..18/2:5:00"),
        ("0 0 * * 0,6", "Sun,Sat *-*-* 0:0:00"),
        ("0 0 * * sun-tue", "Sun,Mon,Tue *-*-* 0:0:00"),
        ("0 0 13 * fri", ""),
        ("0 24 * * *", ""),
        ("often", ""),
        ("", ""),
        ("daily; reboot", ""),
        ("daily\nExecStart=/bin/sh", ""),
    ],
)
def test_times(text: str, at: str) -> None:
    """What cron and systemd say alike. A day of the month with a weekday means "or" to one and "and" to the other."""
    assert calendar(text) == at
