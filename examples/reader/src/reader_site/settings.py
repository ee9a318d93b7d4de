import os
import sys
from pathlib import Path

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent


def split(value):
    return [part.strip() for part in value.split(",") if part.strip()]


def truth(value):
    return value.strip().lower() in ("1", "true", "yes", "on")


# A secret key means production; without one, this is a development server.
SECRET_KEY = os.environ.get("SECRET_KEY") or "development-only"
DEBUG = truth(os.environ.get("DEBUG", "" if os.environ.get("SECRET_KEY") else "1"))
if not DEBUG and not os.environ.get("SECRET_KEY"):
    raise ImproperlyConfigured("SECRET_KEY is not set.")

ALLOWED_HOSTS = split(os.environ.get("ALLOWED_HOSTS", ""))
CSRF_TRUSTED_ORIGINS = split(os.environ.get("CSRF_TRUSTED_ORIGINS", ""))
APP_VERSION = os.environ.get("APP_VERSION", "dev")

INSTALLED_APPS = [
    "feeds",
    "huey.contrib.djhuey",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "reader_site.urls"
WSGI_APPLICATION = "reader_site.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "feeds.context_processors.reader",
            ]
        },
    }
]

DATABASE_PATH = os.environ.get("DATABASE_PATH") or BASE_DIR / "db.sqlite3"
if os.environ.get("DATABASE_URL"):
    DATABASES = {"default": dj_database_url.config()}
else:
    DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATABASE_PATH}}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # Readers do not wait for the writer (WAL), writers wait for one another up to five seconds, and a
    # transaction takes its lock at the start, where waiting is still possible.
    DATABASES["default"].setdefault("OPTIONS", {}).update(
        transaction_mode="IMMEDIATE",
        init_command="PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA busy_timeout=5000;",
    )
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Feeds are fetched by `manage.py run_huey`; its queue is a second SQLite file. Without one, at once.
HUEY_PATH = os.environ.get("HUEY_PATH", "")
HUEY = {
    "huey_class": "huey.SqliteHuey",
    "name": "reader",
    "immediate": not HUEY_PATH,
    "filename": HUEY_PATH or ":memory:",
    "consumer": {"workers": 1, "flush_locks": True},
}
FETCH_MINUTES = int(os.environ.get("FETCH_MINUTES") or 15)

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "/static/"
STATIC_ROOT = os.environ.get("STATIC_ROOT") or BASE_DIR / "staticfiles"
if not DEBUG and "test" not in sys.argv:
    STORAGES = {
        "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
        "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
    }

SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
CSRF_COOKIE_SECURE = truth(os.environ.get("USE_HTTPS", ""))
SECURE_HSTS_SECONDS = 3600 if CSRF_COOKIE_SECURE else 0
SILENCED_SYSTEM_CHECKS = ["security.W008"]  # redirecting to https is the proxy's part

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"short": {"format": "[%(levelname)s] %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "short"}},
    "root": {"handlers": ["console"], "level": os.environ.get("LOG_LEVEL", "INFO")},
}
