"""An app whose every accepted write can be checked: a row, a file in media, a worker's mark, a scheduler's beats."""

from __future__ import annotations

from pathlib import Path

from .. import busy, tiny

APP = "ledger"
DOMAIN = "ledger.example"

TOML = """\
HOST

[apps.ledger]
source = "ledger"
domains = ["ledger.example"]
media = "/media/"
redis = true
keep = 2
apt = ["tree"]

[apps.ledger.env]
STEP = "0"

[apps.ledger.processes.worker]
command = "python manage.py work"
steady = 1

[apps.ledger.processes.beat]
command = "python manage.py beat"
once = true
steady = 1
"""

_SETTINGS = """

MEDIA_ROOT = os.environ["MEDIA_ROOT"]
MEDIA_URL = "/media/"
"""

_URLS = """\
import os
from pathlib import Path

from django.conf import settings
from django.http import HttpResponse
from django.urls import path

from notes.models import Note


def home(request):
    if request.method != "POST":
        return HttpResponse(f"version 1 step {os.environ['STEP']} has a row {Note.objects.first() is not None}")
    number = int(request.body)
    if number % 5 == 0:
        (Path(settings.MEDIA_ROOT) / f"{number}.txt").write_text(f"{number}")
    Note.objects.create(text=number)
    return HttpResponse(f"{number}", status=201)


urlpatterns = [path("", home)]
"""

#: Marks each row once. A database that is away is waited for, as task queues do.
_WORK = """\
import os, time

from django.core.management.base import BaseCommand
from django.db import Error, connection


class Command(BaseCommand):
    def handle(self, **options):
        while True:
            try:
                with connection.cursor() as cursor:
                    cursor.execute("UPDATE notes_note SET worked = worked + 1 WHERE worked = 0")
            except Error as error:
                print(error, flush=True)
                connection.close()
            time.sleep(0.2)
"""

_MIGRATION = """\
import time

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("notes", "{before}")]
    operations = [
        migrations.RunPython(lambda apps, editor: time.sleep(0.3)),
        migrations.RunSQL("CREATE TABLE step_{number} (id integer)"),
    ]
"""


def write(folder: Path) -> None:
    """The whole project, at version 1."""
    busy.write(folder)
    tiny_settings = folder / "tiny/settings.py"
    tiny_settings.write_text(tiny_settings.read_text() + _SETTINGS)
    (folder / "requirements.txt").write_text(tiny.REQUIREMENTS)
    (folder / "tiny/echo.py").unlink()
    (folder / "tiny/urls.py").write_text(_URLS)
    (folder / "notes/management/commands/work.py").write_text(_WORK)
    beat = folder / "notes/management/commands/beat.py"
    beat.write_text(beat.read_text().replace("/srv/tiny/", f"/srv/{APP}/"))
    models = folder / "notes/models.py"
    models.write_text(models.read_text() + "    worked = models.IntegerField(default=0)\n")
    initial = folder / "notes/migrations/0001_initial.py"
    text = initial.read_text()
    assert text.count("models.TextField()),") == 1
    initial.write_text(
        text.replace("models.TextField()),", 'models.TextField()),\n                ("worked", models.IntegerField()),')
    )
    ballast(folder, 1)


def ballast(folder: Path, number: int) -> None:
    """Something that makes a release too large for a full disk."""
    (folder / "tiny/ballast.py").write_text(f"# {number}\n" + "# ballast, nothing but ballast\n" * 60000)


def release(folder: Path, number: int) -> None:
    """The next version: another page, a migration, other ballast. `number` counts from 2 on."""
    urls = folder / "tiny/urls.py"
    text = urls.read_text()
    assert text.count("version ") == 1
    before, _, after = text.partition("version ")
    urls.write_text(f"{before}version {number} {after.partition(' ')[2]}")
    place = folder / "notes/migrations"
    last = max(each.stem for each in place.glob("0*.py"))
    migration = _MIGRATION.format(before=last, number=number)
    (place / f"{int(last[:4]) + 1:04}_step.py").write_text(migration)
    ballast(folder, number)
