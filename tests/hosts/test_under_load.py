"""Deploys and rollbacks while people use the site: no request is lost, no POST counts twice or not at all."""

from __future__ import annotations

import http.client
import itertools
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlencode

import pytest

from .conftest import WARM
from .site import LINKS, Host, Project, standing

RATE = 50  # requests a second
VISITORS = 20  # each one waits for its answer before it asks again
TOML = """\
{table}

[apps.links]
source = "examples/links"
domains = ["links.example"]
redis = true
health = "/healthz"
"""
FOOTER = "examples/links/board/templates/board/base.html"
FIRST, SECOND = "Small, and kept that way.", "Larger than it was."


@pytest.fixture(scope="module")
def site(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with standing("load", WARM) as host:
        project = Project(tmp_path_factory.mktemp("load"), host)
        project.example("links")
        project.write(TOML.format(table=host.table))
        project.deploy()
        yield project


@dataclass
class Load:
    """Visitors of links: half of the requests read, a quarter submits links, a quarter votes."""

    host: Host
    run: str
    lost: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    seen: list[tuple[float, str]] = field(default_factory=list)
    began: float = 0.0
    took: float = 0.0

    def __enter__(self) -> Load:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._link = self.host.psql("links", "SELECT min(id) FROM board_link")
        cookie, page = self._ask("GET", "/submit/")
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
        assert found and cookie
        self._cookie, self._token = cookie, found[1]
        self.began = time.monotonic()
        self._threads = [threading.Thread(target=self._visit) for _ in range(VISITORS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self.took = time.monotonic() - self.began

    def _visit(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                number = next(self._numbers)
            due = self.began + number / RATE
            if self._stop.wait(max(0.0, due - time.monotonic())):
                return
            kind = ("read", "submit", "read", "vote")[number % 4]
            try:
                getattr(self, f"_{kind}")(number)
            except (OSError, http.client.HTTPException, AssertionError) as error:
                self.lost.append(f"{time.monotonic() - self.began:.2f} s: {kind} {number}: {error!r}")
            else:
                with self._lock:
                    self.counts[kind] += 1

    def _read(self, number: int) -> None:
        _, page = self._ask("GET", "/newest/")
        (text,) = (each for each in (FIRST, SECOND) if each in page)
        self.seen.append((time.monotonic(), text))

    def _submit(self, number: int) -> None:
        form = {"url": f"https://{self.run}.example/{number}", "title": f"{self.run} {number}", "tags": "load"}
        self._ask("POST", "/submit/", form, status=302)

    def _vote(self, number: int) -> None:
        self._ask("POST", f"/links/{self._link}/vote/", {"next": "/"}, status=302)

    def _ask(self, method: str, path: str, form: dict[str, str] | None = None, status: int = 200) -> tuple[str, str]:
        """One request over a connection of its own, as another visitor's is; (cookie, text)."""
        connection = http.client.HTTPConnection(self.host.address, 80, timeout=60)
        try:
            headers = {"Host": LINKS}
            body = None
            if form is not None:
                body = urlencode({**form, "csrfmiddlewaretoken": self._token})
                headers |= {"Content-Type": "application/x-www-form-urlencoded", "Cookie": self._cookie}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
            assert answer.status == status, f"{answer.status} {text[:200]}"
            return (answer.getheader("Set-Cookie") or "").partition(";")[0], text
        finally:
            connection.close()

    def proved(self) -> None:
        """Every request was answered as it should be, and the database has each POST exactly once."""
        assert self.lost == []
        rate = sum(self.counts.values()) / self.took
        # RATE is what is asked for; a machine that is busy with other tests answers slower, and then fewer are asked.
        assert rate > 0.3 * RATE, f"{rate:.0f} requests a second are no load"
        assert abs(self.counts["submit"] + self.counts["vote"] - self.counts["read"]) <= VISITORS
        urls = self.host.psql("links", f"SELECT count(*) FROM board_link WHERE url LIKE 'https://{self.run}.%'")
        assert int(urls) == self.counts["submit"]


def votes(host: Host) -> int:
    return int(host.psql("links", "SELECT count(*) FROM board_vote"))


def meanwhile(site: Project, run: str, *command: str) -> Load:
    """`fab command` under load: begun a second before it, ended a second after it."""
    argv, env = site.command(*command)
    before = votes(site.host)
    with Load(site.host, run) as load:
        time.sleep(1)
        done = subprocess.run(argv, capture_output=True, text=True, cwd=site.folder, env=env, timeout=200, check=False)
        time.sleep(1)
    assert done.returncode == 0, done.stdout + done.stderr
    load.proved()
    assert votes(site.host) - before == load.counts["vote"]
    score = site.host.psql("links", f"SELECT score FROM board_link WHERE id = {load._link}")
    assert int(score) == votes(site.host)
    return load


def submit_one(site: Project) -> None:
    """There must be something to vote for."""
    site.host.psql(
        "links",
        "INSERT INTO board_link (title, url, score, submitted_at) VALUES ('one', 'https://one.example', 0, now())",
    )


def test_a_deploy_loses_no_request(site: Project) -> None:
    submit_one(site)
    old = site.host.programs()
    site.edit(FOOTER, FIRST, SECOND)
    load = meanwhile(site, "deploy", "deploy")
    texts = [text for _, text in sorted(load.seen)]
    assert texts[0] == FIRST and texts[-1] == SECOND
    assert SECOND in site.host.curl(LINKS).text
    assert set(old) == {"links-a"} and set(site.host.programs()) == {"links-b"}
    site.settled()


def test_a_rollback_loses_no_request(site: Project) -> None:
    assert SECOND in site.host.curl(LINKS).text
    load = meanwhile(site, "rollback", "rollback", "--app", "links")
    texts = [text for _, text in sorted(load.seen)]
    assert texts[0] == SECOND and texts[-1] == FIRST
    assert FIRST in site.host.curl(LINKS).text
    # What was rolled back is still what the project says: a plan shows it.
    assert [change["key"] for change in site.changes()] == ["app links"]


def test_three_deploys_in_a_row_lose_no_request(site: Project) -> None:
    """The slots change places again and again; the environment's change alone is a new release's reason, too."""
    before = votes(site.host)
    with Load(site.host, "row") as load:
        site.deploy()
        site.write(site.toml.read_text() + '\n[apps.links.env]\nAPP_VERSION = "two"\n')
        site.deploy()
        site.edit("deploykit.toml", '"two"', '"three"')
        site.deploy()
    load.proved()
    assert votes(site.host) - before == load.counts["vote"]
    assert "version three" in site.host.curl(LINKS).text
