"""A tiny project with more than a web server: workers on a queue of files, a scheduler, WebSockets, timed commands.

The queue is a folder: a task is a file that a worker takes by renaming it, so that what is lost or done twice can be
seen from outside, with nothing of deploykit's or of a task queue's in between.
"""

from __future__ import annotations

from pathlib import Path

from . import tiny

_WORK = """\
import os, signal, sys, time
from pathlib import Path

from django.core.management.base import BaseCommand

RELEASE = os.environ["DEPLOYKIT_RELEASE"]
QUEUE, DONE = Path("/srv/tiny/data/queue"), Path("/srv/tiny/data/done")


class Command(BaseCommand):
    def handle(self, **options):
        self.ending = False
        signal.signal(signal.SIGTERM, self.end)
        QUEUE.mkdir(exist_ok=True)
        DONE.mkdir(exist_ok=True)
        print("working", flush=True)
        while not self.ending:
            for task in sorted(QUEUE.glob("*.task")):
                mine = task.with_suffix(f".{os.getpid()}")
                try:
                    task.rename(mine)
                except FileNotFoundError:
                    continue
                time.sleep(float(mine.read_text()))
                with open(DONE / task.stem, "a") as done:
                    done.write(f"{RELEASE} {os.getpid()}\\n")
                mine.unlink()
                if self.ending:
                    break
            time.sleep(0.05)

    def end(self, number, frame):
        self.ending = True
"""

_BEAT = """\
import os, signal, sys, time

from django.core.management.base import BaseCommand

RELEASE = os.environ["DEPLOYKIT_RELEASE"]


def note(word):
    with open("/srv/tiny/data/beats", "a") as beats:
        beats.write(f"{word} {os.getpid()} {RELEASE} {time.time():.3f}\\n")


class Command(BaseCommand):
    def handle(self, **options):
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
        note("begin")
        try:
            while True:
                note("beat")
                time.sleep(0.1)
        finally:
            time.sleep(0.3)  # a scheduler that takes a while to end
            note("end")
"""

_ASGI = """\
async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        return await send({"type": "lifespan.shutdown.complete"})
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        return await send({"type": "http.response.body", "body": b"asgi " + scope["path"].encode()})
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": "echo: " + (event.get("text") or "")})
"""

#: A value that nothing may quote, split or expand on its way, and that every kind of process must have alike.
DIFFICULT = """% # $HOME & " ' , \\\\ {"json": [1, "zwei"]} ${x} `id` ;|<>* ü€🙂
second line"""

TOML = """\
HOST

[apps.tiny]
source = "tiny"
domains = ["tiny.example"]
health = "/"

[apps.tiny.env]
DIFFICULT = '''DIFFICULT_TEXT'''

[apps.tiny.processes.worker]
command = "python manage.py work"
count = 2
stop_timeout = 30
steady = 2

[apps.tiny.processes.beat]
command = "python manage.py beat"
once = true
steady = 1

[apps.tiny.processes.live]
asgi = "tiny.echo:application"
paths = ["/ws/"]

[apps.tiny.processes.other]
asgi = "tiny.echo:application"
server = "uvicorn"
workers = 2
paths = ["/other/"]

[apps.tiny.processes.third]
asgi = "tiny.echo:application"
server = "daphne"
paths = ["/third/"]

[apps.tiny.schedule.tick]
command = "env > /srv/tiny/data/tick.env; echo ticked; sleep 3"
at = "*:*:0/1"
catch_up = true

[apps.tiny.schedule.fails]
command = "python -c 'import sys; sys.exit(\\"no such luck\\")'"
at = "*:*:0/2"

[[apps.tiny.checks]]
path = "/"
text = "version"

[[apps.tiny.checks]]
path = "/ws/echo"
websocket = true

[[apps.tiny.checks]]
command = "test -n \\"$DIFFICULT\\" && python manage.py check"
"""


def write(folder: Path) -> None:
    """The whole project."""
    tiny.write(folder)
    (folder / "requirements.txt").write_text(tiny.REQUIREMENTS + "websockets\ndaphne\nuvicorn-worker\n")
    files = {
        "notes/management/__init__.py": "",
        "notes/management/commands/__init__.py": "",
        "notes/management/commands/work.py": _WORK,
        "notes/management/commands/beat.py": _BEAT,
        "tiny/echo.py": _ASGI,
    }
    for name, text in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


def toml(table: str) -> str:
    """The configuration for a host."""
    return TOML.replace("HOST\n", table).replace("DIFFICULT_TEXT", DIFFICULT.replace("${x}", "$${x}"))
