"""A minimal Django project of a test's own that says how a request reached it; its folders to be served; its sites."""

from __future__ import annotations

from pathlib import Path

FULL, SHUT, FAR, NEAR = (f"{name}.example" for name in ("full", "shut", "far", "near"))
LONG = "near-by-the-longest-name-of-all"
HOSTILE = """a "b" 'c' \\\\d $uri ${x} ; { } # é"""

CONFIGURATION = """\
HOST

[apps.full]
source = "show"
domains = ["full.example"]
database = "none"
persist = ["uploads/"]
processes.api = { wsgi = "show.api:application", paths = ["/api/", "/v2"], workers = 1 }

[apps.full.nginx]
headers = { X-Frame-Options = "SAMEORIGIN", X-Hostile = '''DIFFICULT''', Vary = "X-Own" }
snippet = '''
location = /robots-by-hand.txt { default_type text/plain; return 200 "by hand"; }
'''

[apps.full.nginx.redirects]
"/old" = "/new"
"/query" = "/new?a=1#part"
"/tree/" = "/wood/"
"/away/" = "https://other.example/$here;{/"
"/caf%C3%A9 x/" = "/coffee/"

[apps.full.nginx.locations]
"/static/".folder = ["assets"]
"/media/" = { folder = "uploads/defaults" }
"/docs/" = { folder = "docs", headers = { X-Frame-Options = "", X-Docs = "yes" }, snippet = "expires 1h;" }
"/odd/".folder = ["odd $ '; name", "assets"]
"/uploads/".folder = "uploads"
"/".folder = "front"
"/app/" = { folder = "front", snippet = "error_page 404 =200 /app/index.html;" }
"/upload/" = { max_body = "1m", timeout = 77, snippet = "add_header X-Snippet here;" }
"/v1/".process = "api"

[apps.shut]
source = "show"
domains = ["shut.example"]
database = "none"
health = "/health"
tls = { certificate = "/etc/ssl/shut.pem", key = "/etc/ssl/shut.key" }
[apps.shut.nginx]
proxies = ["192.0.2.1", "2001:db8::/32"]
headers = { Cache-Control = "private" }
[apps.shut.nginx.basic_auth]
anna = { command = "cat anna" }
bert = { secret = "BERT" }
[apps.shut.nginx.locations]
"/open/".snippet = "auth_basic off;"
[[apps.shut.checks]]
path = "/x"
text = "HTTP_HOST"

[apps.far]
source = "show"
domains = ["far.example"]
redirects = ["www.far.example"]
database = "none"
env = { ONLY_BY_TLS = "1" }
nginx = { proxies = ["OURS", "::1", "unix:"], snippet = "listen unix:/run/front.sock;" }
[[apps.far.checks]]
path = "/y"
json = { scheme = "https" }

[apps.LONG]
source = "show"
domains = ["near.example"]
database = "none"
tls = { certificate = "/etc/ssl/shut.pem", key = "/etc/ssl/shut.key" }
nginx = { proxies = ["OURS"] }
"""

TEMPLATE = """\
{% extends "deploykit/nginx/site.conf.j2" %}
{% block http %}
map $uri $mine { default "mine: $uri"; }
{% endblock %}
{% block server %}
    location = /mine { default_type text/plain; return 200 $mine; }
{% endblock %}
"""

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


def toml(table: str, ours: str) -> str:
    """The configuration for a host that sees us by the address `ours`."""
    words = {"HOST\n": table, "OURS": ours, "LONG": LONG, "DIFFICULT": HOSTILE}
    text = CONFIGURATION
    for word, value in words.items():
        text = text.replace(word, value)
    return text
