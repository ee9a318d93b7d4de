"""A minimal Django project of a test's own: one page, one table, and places where it can be broken."""

from __future__ import annotations

from pathlib import Path

_MANAGE = """\
import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tiny.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
"""

_SETTINGS = """\
import os

import dj_database_url

SECRET_KEY = os.environ["SECRET_KEY"]
ALLOWED_HOSTS = os.environ["ALLOWED_HOSTS"].split(",")
INSTALLED_APPS = ["notes"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
ROOT_URLCONF = "tiny.urls"
WSGI_APPLICATION = "tiny.wsgi.application"
DATABASES = {"default": dj_database_url.config()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
"""

_URLS = """\
import os

from django.http import HttpResponse
from django.urls import path

from notes.models import Note


def home(request):
    return HttpResponse(f"<title>tiny</title>version 1 has {Note.objects.count()} notes, pid {os.getppid()}")


urlpatterns = [path("", home)]
"""

_WSGI = """\
from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
"""

_MODELS = """\
from django.db import models


class Note(models.Model):
    text = models.TextField()
"""

_INITIAL = """\
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Note",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                ("text", models.TextField()),
            ],
        ),
    ]
"""

#: One that leaves a row, then fails with words of its own.
FAILING = """\
from django.db import migrations


def fail(apps, schema_editor):
    raise RuntimeError("the moon is in the wrong quarter")


class Migration(migrations.Migration):
    dependencies = [("notes", "0001_initial")]
    operations = [migrations.RunPython(fail)]
"""

REQUIREMENTS = "Django>=5.2,<5.3\ndj-database-url\npsycopg[binary]\n"


def write(folder: Path) -> None:
    """The whole project, in a folder that is not there yet."""
    files = {
        "manage.py": _MANAGE,
        "requirements.txt": REQUIREMENTS,
        "tiny/__init__.py": "",
        "tiny/settings.py": _SETTINGS,
        "tiny/urls.py": _URLS,
        "tiny/wsgi.py": _WSGI,
        "notes/__init__.py": "",
        "notes/models.py": _MODELS,
        "notes/migrations/__init__.py": "",
        "notes/migrations/0001_initial.py": _INITIAL,
    }
    for name, text in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
