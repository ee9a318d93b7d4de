"""What the demo does not have: the simplest server without nginx, ASGI, TLS, an app from a git repository, a sudoer."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from .conftest import WARM
from .site import LINKS, MEMORIES, READER, Host, Project, standing

CONFIGURATION = """\
HOST

[apps.reader]
source = "examples/reader"
domains = ["reader.example"]
database = "sqlite"
nginx = false
port = 8000

[apps.links]
source = "examples/links"
domains = ["links.example"]
redis = true
asgi = "links_site.asgi:application"
env = { GREETING = "${app.name} on ${app.domain}, 100% $${literal}" }

[apps.memories]
source = { git = "GIT", ref = "main" }
domains = ["memories.example"]
redirects = ["www.memories.example"]
tls = { certificate = "/etc/ssl/memories.pem", key = "/etc/ssl/memories.key" }
"""


@pytest.fixture(scope="module")
def site(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with standing("var", WARM) as host:
        project = Project(tmp_path_factory.mktemp("variants"), host)
        project.example("reader", "links", "memories")
        repository = project.folder / "examples/memories"
        for words in (
            ("init", "--quiet", "--initial-branch=main"),
            ("add", "."),
            ("-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "--message", "first"),
        ):
            subprocess.run(["git", *words], cwd=repository, check=True)
        host.sh(
            "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=memories.example "
            "-keyout /etc/ssl/memories.key -out /etc/ssl/memories.pem 2>/dev/null"
        )
        text = CONFIGURATION.replace("HOST", host.table).replace("GIT", f"file://{repository}")
        project.write(text)
        project.first = project.fab("deploy")
        yield project


@pytest.fixture(scope="module")
def host(site: Project) -> Host:
    assert site.first is not None
    assert site.first.status == 0, site.first.text
    return site.host


def secure(host: Host, domain: str, path: str = "/") -> str:
    """ "<HTTP version> <status>" by TLS."""
    done = subprocess.run(
        [
            *("curl", "--silent", "--insecure", "--noproxy", "*", "--output", "/dev/null"),
            *("--write-out", "%{http_version} %{http_code}", "--resolve", f"{domain}:443:{host.address}"),
            f"https://{domain}{path}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout if done.returncode == 0 else f"curl {done.returncode}"


def port(host: Host, path: str = "/") -> str:
    done = subprocess.run(
        [
            *("curl", "--silent", "--noproxy", "*", "--output", "/dev/null", "--write-out", "%{http_code}"),
            *("--header", f"Host: {READER}", f"http://{host.address}:8000{path}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def test_without_nginx_the_app_answers_on_its_port(site: Project, host: Host) -> None:
    assert port(host) == "200"
    host.refuses(READER)  # nginx is there for the others, and knows no such site
    site.edit("deploykit.toml", "port = 8000", 'port = 8000\nenv = { APP_VERSION = "two" }')
    before = host.programs()
    site.deploy()
    assert port(host) == "200"
    after = host.programs()
    assert {name for name in before if "reader" not in name} <= set(after), "only the reader was restarted"


def test_a_killed_server_on_a_port_comes_back_by_itself(host: Host) -> None:
    (pid,) = [pid for name, pid in host.programs().items() if name.startswith("reader-")]
    # Its workers outlive it until they look for their parent: what they answer in that time proves nothing.
    workers = host.run("pgrep", "--parent", pid).stdout.split()
    assert workers
    host.run("kill", "-9", pid)
    host.sh(f"for i in $(seq 300); do kill -0 {' '.join(workers)} 2>/dev/null || exit 0; sleep 0.1; done; exit 1")
    host.sh("curl -fsS -o /dev/null --retry 100 --retry-delay 1 --retry-max-time 60 --retry-all-errors "
            "-H 'Host: reader.example' http://127.0.0.1:8000/")  # fmt: skip
    assert port(host) == "200"
    (again,) = [pid for name, pid in host.programs().items() if name.startswith("reader-")]
    assert again != pid


def test_asgi_is_served_by_uvicorn_workers(host: Host) -> None:
    assert host.curl(LINKS).status == 200
    assert "uvicorn" in host.sh("grep -h worker_class /etc/deploykit/links.*.gunicorn.py")


def test_references_are_replaced_in_the_environment(host: Host) -> None:
    assert host.sh('. /etc/deploykit/links.env; printf %s "$GREETING"') == "links on links.example, 100% ${literal}"


def test_tls_answers_by_http2_and_plain_http_is_redirected(host: Host) -> None:
    assert secure(host, MEMORIES) == "2 200"
    plain = host.curl(MEMORIES, "/photos/?x=1")
    assert (plain.status, plain.headers["location"]) == (301, f"https://{MEMORIES}/photos/?x=1")
    other = host.curl(f"www.{MEMORIES}", "/a")
    assert (other.status, other.headers["location"]) == (301, f"https://{MEMORIES}/a")
    assert secure(host, "stranger.example").startswith("curl ")


def test_a_git_source_is_deployed_by_its_commit(site: Project, host: Host) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "--short=7", "HEAD"],
        cwd=site.folder / "examples/memories",
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert f"main@{commit}" in site.fab("status").stdout


def test_a_second_deploy_changes_nothing(site: Project, host: Host) -> None:
    assert site.deploy().last == "nothing to do"
