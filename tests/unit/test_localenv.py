"""The environment of an app on the developer's own machine: a host's names, values of this machine."""

from __future__ import annotations

import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_detect import Memory, manage

from deploykit import localenv
from deploykit.config import loads
from deploykit.detect import detect
from deploykit.errors import DeploykitError
from deploykit.localenv import Local, Store, environment

SETTINGS = (
    'import os\nDEBUG = os.environ.get("DEBUG", "").lower() == "true"\n'
    'SQL_DEBUG = os.environ.get("SQL_DEBUG") in ("yes", "1")\n'
    'BLOG_DEBUG = int(os.environ.get("BLOG_DEBUG", 0))\nKEY = os.environ["SECRET_KEY"]\n'
)
TREE = {
    "manage.py": manage("site1.settings"), "site1/settings.py": SETTINGS, "site1/wsgi.py": "", "requirements.txt": "",
}  # fmt: skip


def made(
    folder: Path,
    more: str = "",
    typed: dict[str, str] | None = None,
    database: str = "",
    *,
    source: Path | None = None,
    git: str = "b",
) -> Local:
    text = f'[hosts.web1]\n[apps.blog]\nsource = "{git}"\ndomains = ["b.example"]\n{more}'
    project = loads(text, folder / "deploykit.toml")
    tree = Memory(TREE)
    tree.folder = source

    def ask(question: str) -> str:
        name = question.split()[0]
        if typed is None or name not in typed:
            raise DeploykitError(f"a password is needed ({question})")
        return typed[name]

    return environment(
        project, project.apps[0], tree, detect(tree), folder, Store(folder / "secrets.json", ask), 8000, database
    )


def test_the_names_of_a_host_with_values_of_this_machine(tmp_path: Path) -> None:
    more = (
        "[apps.blog.env]\nEXPORTS = '${data.dir}/x'\nBOTH = '${app.domains}|${media.root}|${static.root}'\n"
        "TEXT = 'a $HOME ${app.name}'\nDB = '${database.name}'\n"
    )
    found = made(tmp_path, more).variables
    assert found["DATABASE_URL"] == f"sqlite:///{tmp_path}/data/db.sqlite3"
    assert found["DB"] == f"{tmp_path}/data/db.sqlite3"
    assert found["EXPORTS"] == f"{tmp_path}/data/x"
    assert found["BOTH"] == f"b.example,localhost,127.0.0.1,[::1]|{tmp_path}/media|{tmp_path}/static"
    assert found["TEXT"] == "a $HOME blog"
    assert "http://127.0.0.1:8000" in found["CSRF_TRUSTED_ORIGINS"].split(",")
    assert (found["DEBUG"], found["SQL_DEBUG"], found["BLOG_DEBUG"]) == ("true", "yes", "1")
    assert "/srv/" not in " ".join(found.values())
    for name in ("HOME", "USER", "PATH", "VIRTUAL_ENV", "DEPLOYKIT_RELEASE", "DEPLOYKIT_CODE", "PGHOST"):
        assert name not in found


def test_secrets_are_made_or_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = '[apps.blog.env]\nTOKEN = { secret = "API" }\nMAIL = { env = "MAIL_KEY" }\nSAID = { command = "echo hi" }\n'
    monkeypatch.delenv("MAIL_KEY", raising=False)
    with pytest.raises(DeploykitError) as caught:
        made(tmp_path, more)
    assert caught.value.what == "API has no value on this machine" and "secrets.json" in caught.value.todo
    first = made(tmp_path, more, {"API": "typed $x", "MAIL": "mail"}).variables
    assert (first["TOKEN"], first["MAIL"], first["SAID"]) == ("typed $x", "mail", "hi")
    assert len(first["SECRET_KEY"]) == 50
    file = tmp_path / "secrets.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = made(tmp_path, more).variables
    assert (again["TOKEN"], again["SECRET_KEY"]) == (first["TOKEN"], first["SECRET_KEY"])
    monkeypatch.setenv("MAIL_KEY", "from outside")
    assert made(tmp_path, more).variables["MAIL"] == "from outside"


def test_configuration_files_are_made_here(tmp_path: Path) -> None:
    (tmp_path / "templates/blog").mkdir(parents=True)
    (tmp_path / "templates/blog/local.py.j2").write_text(
        "KEY = {{ env.SECRET_KEY | python }}\nMEDIA = '{{ ref['media.root'] }}'\n"
    )
    more = (
        "[apps.blog.hooks]\nafter_checkout = ['npm ci', 'npm run build']\n[apps.blog.files]\n"
        "'local_settings.py' = { template = 'blog/local.py.j2', pythonpath = true }\n"
    )
    here = made(tmp_path, more)
    file = tmp_path / "files/local_settings.py"
    assert file.read_text() == f"KEY = '{here.variables['SECRET_KEY']}'\nMEDIA = '{tmp_path}/media'\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert here.variables["PYTHONPATH"] == f"{tmp_path}/files"
    assert here.notes == ("its hooks are not run here: npm ci; npm run build",)
    (tmp_path / "templates/blog/local.py.j2").write_text("{{ ref['redis.url'] }}")
    assert made(tmp_path, more).notes[1].startswith("local_settings.py cannot be made here: ")


def test_somebody_else_s_database_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'database = { env = "PRODUCTION" }\n'
    monkeypatch.setenv("PRODUCTION", "postgresql://live:secret@db.example/live")
    assert made(tmp_path, text).variables["DATABASE_URL"] == f"sqlite:///{tmp_path}/data/db.sqlite3"
    own = made(tmp_path, text, database="postgresql://anna@/blog").variables
    assert (own["DATABASE_URL"], own["DATABASE_NAME"], own["DATABASE_USER"]) == (
        "postgresql://anna@/blog",
        "blog",
        "anna",
    )
    assert "DATABASE_URL" not in made(tmp_path, 'database = "none"\n').variables
    parts = "[apps.blog.env]\nDB_HOST = '${database.host}'\n"
    left = made(tmp_path, parts)
    assert "DB_HOST" not in left.variables and left.notes == (
        "DB_HOST is not set: there is no ${database.host} on this machine",
    )


@pytest.fixture
def redis(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Something that answers PING as Redis does, on a port of its own."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            with peer:
                peer.recv(64)
                peer.sendall(b"+PONG\r\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    port = server.getsockname()[1]
    monkeypatch.setitem(localenv._PORTS, "redis", port)
    yield port
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


STORES = (
    'redis = true\nbroker = "redis"\n[apps.blog.processes.worker]\ncommand = "celery -A x worker"\n'
    "[apps.blog.env]\nQUEUE = '${broker.celery}'\nCACHE = '${redis.url}'\nSOCKET = '${redis.socket}'\n"
)


def test_services_that_answer_here_are_used(tmp_path: Path, redis: int) -> None:
    here = made(tmp_path, STORES)
    place = f"redis://127.0.0.1:{redis}"
    assert here.variables["REDIS_URL"] == here.variables["CACHE"] == f"{place}/0"
    assert (
        here.variables["BROKER_URL"] == here.variables["QUEUE"] == here.variables["CELERY_BROKER_URL"] == f"{place}/1"
    )
    assert here.notes == ("SOCKET is not set: there is no ${redis.socket} on this machine",)


def test_services_that_do_not_are_left_out_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        closed = probe.getsockname()[1]
    monkeypatch.setitem(localenv._PORTS, "redis", closed)
    here = made(tmp_path, STORES)
    assert not {"REDIS_URL", "BROKER_URL", "CELERY_BROKER_URL", "QUEUE", "CACHE"} & set(here.variables)
    assert here.notes[0] == f"no redis answers on 127.0.0.1:{closed}: REDIS_URL is not set"
    assert "QUEUE is not set: there is no ${broker.celery} on this machine" in here.notes
