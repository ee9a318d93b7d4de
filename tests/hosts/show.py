"""A minimal Django project of a test's own that says how a request reached it; and its folders to be served."""

from __future__ import annotations

from pathlib import Path

_MANAGE = """\
import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "show.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
"""

_SETTINGS = """\
import os

SECRET_KEY = os.environ["SECRET_KEY"]
ALLOWED_HOSTS = os.environ["ALLOWED_HOSTS"].split(",")
INSTALLED_APPS = ["django.contrib.staticfiles"]
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware"]
ROOT_URLCONF = "show.urls"
WSGI_APPLICATION = "show.wsgi.application"
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_SSL_REDIRECT = bool(os.environ.get("ONLY_BY_TLS"))
SECURE_CONTENT_TYPE_NOSNIFF = False
STATIC_URL = "/static/"
STATIC_ROOT = os.environ["STATIC_ROOT"]
STATICFILES_DIRS = ["collected"]
MEDIA_URL = "/media/"
MEDIA_ROOT = os.environ["MEDIA_ROOT"]
"""

_URLS = """\
from django.http import HttpResponse, JsonResponse
from django.urls import re_path


def show(request):
    if request.path == "/broken":
        return HttpResponse("broken", status=500)
    found = {name: value for name, value in request.META.items() if name.startswith("HTTP_")}
    found |= {"scheme": request.scheme, "path": request.get_full_path(), "size": len(request.body)}
    answer = JsonResponse(found)
    answer["X-Frame-Options"] = "from the app"
    answer["Vary"] = "Cookie"
    return answer


urlpatterns = [re_path("", show)]
"""

_WSGI = """\
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "show.settings")
from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
"""

_API = """\
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"api " + environ["PATH_INFO"].encode()]
"""

_FILES = {
    "manage.py": _MANAGE,
    "requirements.txt": "Django>=5.2,<5.3\n",
    "show/__init__.py": "",
    "show/settings.py": _SETTINGS,
    "show/urls.py": _URLS,
    "show/wsgi.py": _WSGI,
    "show/api.py": _API,
    "collected/both.txt": "collected",
    "collected/app.0123456789ab.js": "hashed",
    "assets/both.txt": "assets",
    "assets/second.txt": "second",
    "docs/index.html": "the docs",
    "docs/guide/index.html": "the guide",
    "docs/guide/empty/.keep": "",
    "docs/näh é/index.html": "odd",
    "odd $ '; name/x.txt": "from an odd folder",
    "front/robots.txt": "nobody",
    "front/index.html": "front page",
}


def write(folder: Path) -> None:
    """The whole project, in a folder that is not there yet."""
    for name, text in _FILES.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
