"""What differs between Ubuntu and Debian, by what was recorded on such systems: docs/systems.md has the sources.

Debian's was recorded on machines of the tests, Ubuntu's from its packages and their documentation.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from test_recipes import MEMORIES, READER, made

from deploykit.agent.resource import Failed, Note
from deploykit.agent.resources import Package
from deploykit.agent.values import App, Database, Facts, Host, Redis, Tls
from deploykit.errors import DeploykitError
from deploykit.recipes import base, psql
from deploykit.recipes.systems import SYSTEMS, supported, system
from deploykit.remote import Remote

ROOT = Path(__file__).resolve().parents[2]
NOBLE = Facts("ubuntu", "24.04", "noble", "x86_64", 1987, 2, "3.12.3")


def facts(name: tuple[str, str]) -> Facts:
    return replace(NOBLE, system=name[0], version=name[1])


def packages(name: tuple[str, str]) -> set[str]:
    apps = (replace(MEMORIES, redis=Redis()), replace(READER, tls=Tls("/c", "/k")))
    return {each.name for each in made(*apps, facts=facts(name)).values() if isinstance(each, Package)}


def test_the_same_names_on_every_system_but_these() -> None:
    common = set.intersection(*(packages(name) for name in SYSTEMS))
    assert common == {
        *("ca-certificates", "nginx", "python3", "python3-pip-whl", "redis-server", "supervisor", "tzdata"),
    }
    others = {name: packages(name) - common for name in SYSTEMS}
    assert others == {
        ("ubuntu", "22.04"): {"postgresql-14"},
        ("ubuntu", "24.04"): {"postgresql-16", "tzdata-legacy"},
        ("ubuntu", "26.04"): {"postgresql-18", "tzdata-legacy"},
        ("debian", "12"): {"postgresql-15"},
        ("debian", "13"): {"postgresql-17", "tzdata-legacy"},
    }


def test_nothing_comes_as_a_snap() -> None:
    for path in [*(ROOT / "recipes").glob("*.py"), *(ROOT / "templates").rglob("*.j2")]:
        assert "snap" not in path.read_text().replace("snapshot", ""), path


def test_nginx_is_told_of_http2_as_its_version_wants() -> None:
    app = replace(READER, tls=Tls("/c", "/k"))
    for name in SYSTEMS:
        site = made(app, facts=facts(name))["file /etc/nginx/sites-available/reader.conf"]
        own = "http2 on;" in site.content  # type: ignore[attr-defined]
        assert own == (system(facts(name)).nginx >= (1, 25, 1))
        assert own != ("listen 443 ssl http2;" in site.content)  # type: ignore[attr-defined]
        assert "resolver " not in site.content, "systemd-resolved's address need not be known"  # type: ignore[attr-defined]


@pytest.mark.parametrize("folder", ["deploykit/agent", "recipes"])
def test_what_runs_on_hosts_is_python_of_ubuntu_22_04(folder: str) -> None:
    """3.10 is the oldest; that nothing newer is called is mypy's to see (python_version in pyproject.toml)."""
    for path in (ROOT / folder).rglob("*.py"):
        ast.parse(path.read_text(), str(path), feature_version=(3, 10))
    settings = (ROOT / "pyproject.toml").read_text()
    assert 'python_version = "3.10"' in settings and 'target-version = "py310"' in settings


# -- ufw ------------------------------------------------------------------------------------------


def warnings(ufw: str | None, *apps: App) -> list[str]:
    found: list[Note] = list(base.notes(Host("web1", apps=apps), replace(NOBLE, ufw=ufw)))
    assert all(note.warning for note in found)
    return [note.text for note in found]


def test_a_firewall_without_the_ports_is_told() -> None:
    secure = replace(READER, tls=Tls("/c", "/k"))
    bare = replace(READER, name="bare", nginx=False, port=8005)
    assert warnings(None, secure, bare) == [], "not active"
    assert warnings("22", READER) == [
        "ufw is active on the host and lets nobody in at port 80; as root there: ufw allow 80/tcp"
    ]
    (both,) = warnings("22", secure, bare)
    assert "ports 80, 443, 8005; as root there: ufw allow 80/tcp; ufw allow 443/tcp; ufw allow 8005/tcp" in both
    assert warnings("", secure) and warnings("22,443", secure) == warnings("443", READER)
    for enough in ("22,443,80,8000:8010", "any", "1:65535"):
        assert warnings(enough, secure, bare) == []
    assert warnings("22") == [], "nobody visits a host without apps"


# -- PostgreSQL -----------------------------------------------------------------------------------


@pytest.fixture
def clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    real = psql.glob.glob  # type: ignore[attr-defined]
    monkeypatch.setattr(psql.glob, "glob", lambda pattern: real(str(tmp_path) + pattern))  # type: ignore[attr-defined]
    yield tmp_path / "etc/postgresql"


def cluster(clusters: Path, version: str, name: str, port: str) -> None:
    place = clusters / version / name
    place.mkdir(parents=True)
    # As pg_createcluster of postgresql-common 248 (Debian 12) and 278 (Debian 13) writes it.
    (place / "postgresql.conf").write_text(
        f"#listen_addresses = 'localhost'\t\t# what IP address(es) to listen on;\n{port}\nmax_connections = 100\n"
    )


def test_another_postgresql_is_no_obstacle_on_another_port(clusters: Path) -> None:
    psql._alone("16")
    cluster(clusters, "17", "main", "port = 5433\t\t\t\t# (change requires restart)")
    cluster(clusters, "16", "main", "port = 5432\t\t\t\t# (change requires restart)")
    psql._alone("16")
    cluster(clusters, "14", "old", "#port = 5432")
    with pytest.raises(Failed, match="PostgreSQL 14 has port 5432, and 16, this system's own, was expected"):
        psql._alone("16")


# -- becoming root --------------------------------------------------------------------------------

#: sudo -n true; sudo -k -S -p '' true with a wrong password. Recorded: sudo 1.9.13 (Debian 12) and 1.9.16 (Debian 13),
#: sudo-rs 0.2.5 (Debian 13) and 0.2.15; what 0.2.13 (Ubuntu 26.04) says of a user who may not is from its source.
WANTS = ["sudo: a password is required", "sudo-rs: interactive authentication is required",
         "sudo: interactive authentication is required"]  # fmt: skip
WRONG = [
    "Sorry, try again.\n\nsudo: no password was provided\nsudo: 1 incorrect password attempt",
    "sudo: Authentication failed, try again.\n\nsudo-rs: Maximum 3 incorrect authentication attempts",
    "sudo: Authentication failed, try again.\nsudo: Authentication required but not attempted",
]
NEVER = [
    "ann is not in the sudoers file.",
    "sudo-rs: I'm sorry ann. I'm afraid I can't do that",
    "sudo: Sorry, user ann may not run sudo on web1.",
]


class Sudo:
    """A transport to a host whose sudo ends with these words."""

    user = "ann"

    def __init__(self, *said: str) -> None:
        self._said = list(said)

    def exec(self, command: str) -> Sudo:
        return self

    def write(self, data: bytes) -> None: ...

    def close_write(self) -> None: ...

    def read(self, deadline: float | None = None) -> bytes:
        return b""

    def finish(self) -> tuple[int, str]:
        return 1, self._said.pop(0)


def refusal(*said: str, password: str = "x") -> str:
    class Fake:
        sha = "0" * 64
        data = b""

    remote = Remote("web1", Sudo(*said), Fake(), lambda question: password, {})  # type: ignore[arg-type]
    with pytest.raises(DeploykitError) as error:
        list(remote.events({"operation": "status"}))
    return error.value.what


@pytest.mark.parametrize("wants", WANTS)
@pytest.mark.parametrize("wrong", WRONG)
def test_every_sudo_that_wants_a_password_is_given_one(wants: str, wrong: str) -> None:
    assert refusal(wants, wrong) == "sudo does not accept the password"


@pytest.mark.parametrize("never", NEVER)
def test_every_sudo_that_refuses(never: str) -> None:
    assert refusal(f"{never}\nsudo") == "ann may not become root there"
    assert refusal(WANTS[1], f"{never}\nsudo") == "ann may not become root there"


class Says(Sudo):
    """A host whose shell or key prints something first."""

    def __init__(self, *lines: bytes) -> None:
        self._lines = list(lines)

    def read(self, deadline: float | None = None) -> bytes:
        return self._lines.pop(0) if self._lines else b""

    def finish(self) -> tuple[int, str]:
        return 142, ""


def said(*lines: bytes) -> DeploykitError:
    class Fake:
        sha = "0" * 64
        data = b""

    remote = Remote("web1", Says(*lines), Fake(), lambda question: "", {})  # type: ignore[arg-type]
    with pytest.raises(DeploykitError) as error:
        list(remote.events({"operation": "status"}))
    return error.value


def test_a_cloud_image_that_wants_another_user() -> None:
    """What cloud-init writes in front of root's keys (DISABLE_USER_OPTS of its ssh_util.py)."""
    error = said(b'Please login as the user "ubuntu" rather than the user "root".\n', b"\n")
    assert (error.what, error.todo) == ("ann may not log in there", 'write user = "ubuntu"')


def test_what_is_not_the_agents_is_shown() -> None:
    error = said(b"This account is currently not available.\n", b"42\n", b'["x"]\n', b"\xff\n")
    assert error.what == "the agent ended with 142"
    assert error.todo.startswith("This account is currently not available.")


# -- what a host says of itself -------------------------------------------------------------------

UNKNOWN = [("ubuntu", "25.10"), ("ubuntu", "20.04"), ("debian", ""), ("debian", "11"), ("linuxmint", "22")]


@pytest.mark.parametrize("name", UNKNOWN)
def test_others_are_refused_before_anything_is_changed(name: tuple[str, str]) -> None:
    assert supported(facts(name))
    with pytest.raises(Failed) as failure:
        list(base.recipe(Host("web1", apps=(replace(READER, database=Database("none")),)), facts(name), str))
    assert "Ubuntu 24.04" in failure.value.todo
