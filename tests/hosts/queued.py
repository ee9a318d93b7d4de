"""Celery's tasks through a deploy of memories: what was queued, what ran, and how many schedulers there were.

What ran is read from the workers' own logs: Celery says "succeeded" once for each time a task ran to its end.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from .site import MEMORIES, Host, Project, eventually

_PICTURE = """
import io, sys
from PIL import Image
image = Image.effect_noise((64, 48), 90).convert("RGB").resize((WIDTH, HEIGHT))
image.save(sys.stdout.buffer, "JPEG", quality=85)
"""

_QUEUE = """
import django
django.setup()
from photos.models import Photo
from photos.tasks import make_thumbnail
pks = list(Photo.objects.order_by("pk").values_list("pk", flat=True))
print(*(make_thumbnail.delay(pks[number % len(pks)]).id for number in range(COUNT)))
"""

#: Counts the beats every 20 ms until the file goes away. Waiting for its turn, a second one is flock yet, not Python.
_WATCH = """
import os, time
most = looks = 0
open("/run/watching", "w").close()
while os.path.exists("/run/watching"):
    found = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = open(f"/proc/{pid}/cmdline", "rb").read().split(b"\\0")
            found += b"beat" in words and b"python" in os.path.basename(os.readlink(f"/proc/{pid}/exe")).encode()
        except OSError:
            pass
    most, looks = max(most, found), looks + 1
    time.sleep(0.02)
print(most, looks)
"""


def picture(host: Host, width: int, height: int) -> bytes:
    """A JPEG, made by the Pillow that memories has on the host."""
    script = _PICTURE.replace("WIDTH", str(width)).replace("HEIGHT", str(height))
    done = host.machine.run("/usr/local/lib/deploykit/in-app", "memories", "python", "-c", script, seconds=60)
    assert done.stdout[:3] == b"\xff\xd8\xff", done
    return done.stdout


def queue(host: Host, count: int) -> list[str]:
    """The ids of that many tasks, sent at once."""
    ids = host.said(
        "/usr/local/lib/deploykit/in-app", "memories", "python", "-c", _QUEUE.replace("COUNT", str(count))
    ).split()
    assert len(set(ids)) == count
    return ids


def ran(host: Host, slots: str = "ab") -> Counter[str]:
    """How often each task ran to its end, by its id."""
    logs = " ".join(f"/var/log/deploykit/memories-{slot}.worker-1.log*" for slot in slots)
    said = host.sh(f"cat {logs} 2>/dev/null || true")
    return Counter(re.findall(r"make_thumbnail\[([0-9a-f-]{36})\] succeeded", said))


def all_ran(host: Host, ids: list[str]) -> Counter[str] | None:
    """How often each ran, once all have; None when after two minutes some have not."""

    def found() -> Counter[str] | None:
        times = ran(host)
        return times if times.keys() >= set(ids) else None

    return eventually(found, 120) or None


@contextlib.contextmanager
def schedulers(host: Host) -> Iterator[list[int]]:
    """Afterwards the list has the most beats that were seen at one time, and how often somebody looked."""
    found: list[int] = []
    done: list[str] = []
    thread = threading.Thread(target=lambda: done.append(host.said("python3", "-c", _WATCH)))
    thread.start()
    try:
        yield found
    finally:
        host.said("rm", "/run/watching")
        thread.join()
        found += [int(each) for each in done[0].split()]


@dataclass
class Visitors:
    """People who look at memories and one who uploads, each waiting for the answer before the next request."""

    host: Host
    jpeg: bytes
    lost: list[str] = field(default_factory=list)
    read: int = 0
    uploaded: int = 0

    def __enter__(self) -> Visitors:
        self._ending = threading.Event()
        self._token, self._cookie = self._form()
        self._threads = [threading.Thread(target=self._look) for _ in range(4)]
        self._threads.append(threading.Thread(target=self._upload))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _look(self) -> None:
        while not self._ending.wait(0.05):
            if self._ask("GET", "/", 200) is not None:
                self.read += 1

    def _upload(self) -> None:
        while not self._ending.wait(0.5):
            fields = {"csrfmiddlewaretoken": self._token, "new_album": "Under load"}
            parts = [
                f'--frontier\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
                for name, value in fields.items()
            ]
            head = b'--frontier\r\nContent-Disposition: form-data; name="images"; filename="load.jpg"\r\n'
            body = b"".join(parts) + head + b"Content-Type: image/jpeg\r\n\r\n" + self.jpeg + b"\r\n--frontier--\r\n"
            kind = "multipart/form-data; boundary=frontier"
            if self._ask("POST", "/upload/", 302, body, {"Content-Type": kind, "Cookie": self._cookie}) is not None:
                self.uploaded += 1

    def _form(self) -> tuple[str, str]:
        connection = http.client.HTTPConnection(self.host.address, 80, timeout=30)
        connection.request("GET", "/upload/", headers={"Host": MEMORIES})
        answer = connection.getresponse()
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', answer.read().decode())
        assert found
        return found[1], (answer.getheader("Set-Cookie") or "").partition(";")[0]

    def _ask(
        self, method: str, path: str, status: int, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> bytes | None:
        began = time.monotonic()
        connection = http.client.HTTPConnection(self.host.address, 80, timeout=60)
        try:
            connection.request(method, path, body, {"Host": MEMORIES, **(headers or {})})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status == status:
                return text
            self.lost.append(f"{method} {path} answered {answer.status}")
        except (OSError, http.client.HTTPException) as error:
            self.lost.append(f"{method} {path} after {time.monotonic() - began:.2f} s: {error!r}")
        finally:
            connection.close()
        return None


def through_a_deploy(site: Project) -> None:
    """200 tasks, visitors and an uploader, and in the middle of it a deploy: nothing is lost, nothing comes twice."""
    host, old, new = site.host, "Kept by the family, for the family.", "Still kept by the family."
    before = int(host.psql("memories", "SELECT count(*) FROM photos_photo"))
    assert set(ran(host, "b")) == set()
    with schedulers(host) as beats, Visitors(host, picture(host, 400, 300)) as visitors:
        ids = queue(host, 200)
        assert eventually(lambda: set(ran(host)) & set(ids), 20)  # they have begun
        site.edit("examples/memories/photos/templates/photos/base.html", old, new)
        site.deploy()
    assert visitors.lost == [] and visitors.read > 20 and visitors.uploaded > 3
    assert new in host.curl(MEMORIES).text
    times = all_ran(host, ids)
    assert times, f"{len(set(ids) - set(ran(host)))} of 200 did not run"
    assert {each: times[each] for each in ids if times[each] != 1} == {}
    done = [set(ran(host, slot)) & set(ids) for slot in "ab"]
    assert all(done), [len(each) for each in done]  # the old release's worker and the new one's
    waiting = "SELECT count(*) FILTER (WHERE thumbnail = ''), count(*) FROM photos_photo"
    assert eventually(lambda: host.psql("memories", waiting).startswith("0|"), 60), host.psql("memories", waiting)
    assert int(host.psql("memories", waiting).partition("|")[2]) == visitors.uploaded + before
    most, looks = beats
    assert most == 1 and looks > 100
    assert set(host.programs()) & {"memories-a", "memories-a.worker-1", "memories-a.beat-1"} == set()
    site.settled()
