"""The demo: four apps with all they need, workers, schedules, WebSockets, brokers and caches, on one host.

Judged from outside: pictures by their bytes, tasks by the workers' logs and the database, caches by Memcached's own
figures, WebSockets by a client of its own.
"""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import queued
from .conftest import WARM
from .site import LINKS, MEMORIES, READER, Host, Project, eventually, standing

POSTCARDS = "postcards.example"
IN_APP = "/usr/local/lib/deploykit/in-app"


@pytest.fixture(scope="module")
def site(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    def sooner(text: str) -> str:
        """What happens each quarter of an hour happens each minute, what happens each 20 seconds each second."""
        assert 'REMEMBER_SECONDS = "20"' in text
        text = text.replace('REMEMBER_SECONDS = "20"', 'REMEMBER_SECONDS = "1"')
        return text.replace("[apps.reader.env]\n", '[apps.reader.env]\nFETCH_MINUTES = "1"\n')

    with standing("exam", WARM) as host:
        project = Project(tmp_path_factory.mktemp("examples"), host).demo(sooner)
        project.first = project.fab("deploy")
        yield project


@pytest.fixture(scope="module")
def host(site: Project) -> Host:
    assert site.first is not None
    assert site.first.status == 0, site.first.text
    return site.host


@pytest.fixture(scope="module")
def cookies(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    jar = str(tmp_path_factory.mktemp("cookies") / "jar")
    return ("--cookie", jar, "--cookie-jar", jar)


def form(host: Host, cookies: tuple[str, ...], domain: str, path: str, **values: str) -> None:
    """A form as a browser sends it: with the token of its page."""
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', host.curl(domain, path, *cookies).text)
    assert found
    fields = {"csrfmiddlewaretoken": found[1], **values}
    words = [word for name, value in fields.items() for word in ("--form", f"{name}={value}")]
    answer = host.curl(domain, path, *cookies, *words)
    assert answer.status == 302, answer.text


def test_one_deploy_brings_everything_and_a_second_one_does_nothing(site: Project, host: Host) -> None:
    assert set(host.programs()) == {
        *("memories-a", "memories-a.worker-1", "memories-a.beat-1", "links-a", "links-a.cluster-1"),
        *("reader-a", "reader-a.huey-1", "postcards-a", "postcards-a.live-1", "postcards-a.worker-1"),
    }
    for domain in (MEMORIES, LINKS, READER, POSTCARDS):
        assert host.curl(domain, "/healthz").status == 200, domain
    site.settled()
    assert site.deploy().last == "nothing to do"


def size(jpeg: bytes) -> tuple[int, int]:
    """Width and height of a JPEG, from its frame header (ITU T.81, B.2.2)."""
    assert jpeg[:2] == b"\xff\xd8"
    at = 2
    while True:
        marker, length = struct.unpack(">HH", jpeg[at : at + 4])
        if 0xFFC0 <= marker <= 0xFFC2:
            height, width = struct.unpack(">HH", jpeg[at + 5 : at + 9])
            return width, height
        at += 2 + length


def test_an_uploaded_photo_gets_its_thumbnail_from_celery(host: Host, cookies: tuple[str, ...], tmp_path: Path) -> None:
    photo = tmp_path / "red kite.jpg"
    photo.write_bytes(queued.picture(host, 3600, 2400))
    assert size(photo.read_bytes()) == (3600, 2400)
    form(host, cookies, MEMORIES, "/upload/", new_album="Birds", images=f"@{photo};type=image/jpeg")
    found = eventually(lambda: json.loads(host.curl(MEMORIES, "/api/photos/").text)["latest"]["thumbnail"], seconds=20)
    assert found, host.sh("tail -n 30 /var/log/deploykit/memories-a.worker-1.log")
    small = host.curl(MEMORIES, found)
    assert small.headers["content-type"] == "image/jpeg" and size(small.body) == (800, 533)
    assert host.said("stat", "--format=%U", f"/srv/memories{found}") == "memories"
    # Its own word for it, and no other process of the app's could have it.
    assert len(queued.ran(host)) == 1


def test_celery_beat_ran(host: Host) -> None:
    assert eventually(lambda: int(host.psql("memories", "SELECT count(*) FROM photos_moment")) >= 3, 15)
    assert "Do you remember?" in host.curl(MEMORIES).text
    # What beat remembers outlives its release (how its file ends is the dbm's choice).
    assert set(host.sh("stat --format=%U /srv/memories/data/celerybeat-schedule*").split()) == {"memories"}


def test_django_q_relates_links_and_counts_each_minute(host: Host, cookies: tuple[str, ...]) -> None:
    for number in range(2):
        values = {"url": f"https://{number}.example/", "title": f"Number {number}", "tags": "numbers"}
        form(host, cookies, LINKS, "/submit/", **values)
    related = "SELECT count(*) FROM board_link_related"
    assert eventually(lambda: int(host.psql("links", related)) >= 1, 15), host.sh(
        "tail -n 30 /var/log/deploykit/links-a.cluster-1.log"
    )
    assert "see also" in host.curl(LINKS, "/newest/").text
    done = "SELECT count(*) FROM django_q_task WHERE success AND func = 'board.tasks.{}'"
    assert eventually(lambda: int(host.psql("links", done.format("relate"))) == 2, 10)
    assert eventually(lambda: int(host.psql("links", done.format("count"))) >= 1, 60)


def frames(host: Host, domain: str, path: str) -> Iterator[dict[str, str]]:
    """What a WebSocket says through nginx, once "hello" was sent; spoken by hand (RFC 6455)."""
    with socket.create_connection((host.address, 80), timeout=15) as peer:
        key = base64.b64encode(os.urandom(16)).decode()
        peer.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {domain}\r\nOrigin: http://{domain}\r\nConnection: Upgrade\r\n"
            f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        answer = peer.makefile("rb")
        assert b" 101 " in answer.readline()
        while answer.readline() != b"\r\n":
            pass
        data, mask = b'"hello"', os.urandom(4)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
        peer.sendall(struct.pack("!BB", 0x81, 0x80 | len(data)) + mask + masked)
        while True:
            _, length = struct.unpack("!BB", answer.read(2))
            if length == 126:
                (length,) = struct.unpack("!H", answer.read(2))
            yield json.loads(answer.read(length))


def test_a_card_is_shown_live_and_stamped_by_rq(host: Host, cookies: tuple[str, ...]) -> None:
    heard = frames(host, POSTCARDS, "/live/")
    assert next(heard) == {"what": "welcome"}
    time.sleep(14)  # with nothing to say: sockets that gave up did so after 5 to 15 seconds
    form(host, cookies, POSTCARDS, "/", text="The ferry was late.", name="Ida", place="Reine")
    arrived, stamped = next(heard), next(heard)
    assert (arrived["what"], stamped["what"], arrived["id"]) == ("arrived", "stamped", stamped["id"])
    assert "stamp<br>follows" in arrived["html"] and "4 words" in stamped["html"]
    assert host.psql("postcards", "SELECT words, motif FROM mail_card") == "4|boat"
    assert "mail.jobs.stamp" in host.sh("cat /var/log/deploykit/postcards-a.worker-1.log")


def hits(host: Host) -> int:
    """What Memcached itself counts."""
    ask = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/memcached-postcards.cache/memcached.sock');"
        "s.sendall(b'stats\\r\\nquit\\r\\n'); print(s.makefile().read())"
    )
    found = re.search(r"STAT get_hits (\d+)", host.said("python3", "-c", ask, user="postcards"))
    assert found
    return int(found[1])


def test_the_wall_comes_from_memcached(host: Host) -> None:
    assert "4 words" in host.curl(POSTCARDS).text
    before = hits(host)
    for _ in range(10):
        assert "4 words" in host.curl(POSTCARDS).text
    assert hits(host) - before == 10
    # Nothing but the cache could still know this card.
    host.psql("postcards", "DELETE FROM mail_card")
    assert "4 words" in host.curl(POSTCARDS).text


def test_a_schedule_of_the_clock(site: Project, host: Host) -> None:
    assert "deploykit-postcards.tidy.timer" in host.said("systemctl", "list-timers", "--no-legend", "--plain")
    host.said("systemctl", "start", "deploykit-postcards.tidy.service")
    said = host.said("journalctl", "-q", "-o", "cat", "-u", "deploykit-postcards.tidy.service")
    assert "0 cards taken down, 0 stay." in said
    assert re.search(r"^postcards +tidy +.*, well ", site.fab("status").stdout, re.MULTILINE)


def test_a_deploy_drops_no_request_and_each_task_runs_once(site: Project, host: Host) -> None:
    """The promise of Redis with `acks_late`: a task whose worker was killed comes again, after the visibility timeout.

    No worker is killed here: the old one finishes what it holds, gives back what it had only fetched, and ends. So each
    runs exactly once.
    """
    queued.through_a_deploy(site)


def test_huey_fetches_by_itself_and_when_asked(host: Host, cookies: tuple[str, ...]) -> None:
    database = "/srv/reader/data/db.sqlite3"

    def rows(query: str) -> list[str]:
        script = f"import sqlite3; print(*sqlite3.connect('{database}').execute({query!r}).fetchone(), sep='|')"
        return host.said("python3", "-c", script, user="reader").split("|")

    asked = "SELECT count(*), min(fetched_at) FROM feeds_feed"
    assert eventually(lambda: rows(asked)[0] == "2" and rows(asked)[1] != "None", 80), "nothing was fetched by itself"
    assert rows("SELECT count(*) FROM feeds_entry") == ["10"]
    page = host.curl(READER, "/", *cookies)
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
    assert found
    # In the middle of a minute, so that it is not the minute that does it.
    assert eventually(lambda: 5 < int(host.said("date", "+%S")) < 40, 30)
    before = rows(asked)[1]
    assert host.curl(READER, "/fetch/", *cookies, "--data", f"csrfmiddlewaretoken={found[1]}").status == 302
    assert eventually(lambda: rows(asked)[1] > before, 15), "nothing was fetched when it was asked for"
    assert host.said("stat", "--format=%U", "/srv/reader/data/huey.sqlite3") == "reader"


@pytest.mark.parametrize("app", ["links", "reader", "postcards"])
def test_stopping_ends_every_process(site: Project, host: Host, app: str) -> None:
    """A queue's own children are gone with it: a deploy leaves no stray process behind."""

    def pids() -> set[str]:
        return set(host.run("pgrep", "-u", app, check=False).stdout.split())

    before = pids()
    site.edit("deploykit.toml", f"[apps.{app}]\n", f"[apps.{app}]\nkeep = 3\n")
    site.edit("deploykit.toml", f"[apps.{app}.env]\n" if app != "links" else "[apps.links.processes.cluster]\n", (
        f'[apps.{app}.env]\nAPP_VERSION = "two"\n' if app != "links"
        else '[apps.links.env]\nAPP_VERSION = "two"\n\n[apps.links.processes.cluster]\n'
    ))  # fmt: skip
    site.deploy("--app", app)
    assert "two" in host.curl(f"{app}.example").text
    kept = host.said("sh", "-c", f"pgrep -u {app} -a 'redis|memcached' || true").split("\n")
    stores = {line.split()[0] for line in kept if line}
    assert before & pids() <= stores, host.said("ps", "-u", app, "-o", "pid,args")
