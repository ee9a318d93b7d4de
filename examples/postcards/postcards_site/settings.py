"""Settings of Postcards; what the environment may say is in the README."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent


def words(name):
    return [word for word in os.environ.get(name, "").replace(",", " ").split() if word]


SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "")
DEBUG = not SECRET_KEY
SECRET_KEY = SECRET_KEY or "only-for-development"
ALLOWED_HOSTS = words("DJANGO_ALLOWED_HOSTS")
CSRF_TRUSTED_ORIGINS = words("DJANGO_CSRF_TRUSTED_ORIGINS")
APP_VERSION = os.environ.get("APP_VERSION", "dev")

INSTALLED_APPS = [
    *(["daphne"] if DEBUG else []),  # gives runserver its WebSockets; must come first
    "django.contrib.staticfiles",
    "channels",
    "django_rq",
    "mail",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "postcards_site.urls"
WSGI_APPLICATION = "postcards_site.wsgi.application"
ASGI_APPLICATION = "postcards_site.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]

if "POSTGRES_DB" in os.environ:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": os.environ["POSTGRES_DB"],
            "USER": os.environ.get("POSTGRES_USER", ""),
            "PASSWORD": os.environ.get("POSTGRES_PASSWORD", ""),
            "HOST": os.environ.get("POSTGRES_HOST", ""),
        }
    }
else:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ.get("SQLITE_PATH") or BASE_DIR / "db.sqlite3",
        }
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

if os.environ.get("MEMCACHED"):
    CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
            "LOCATION": os.environ["MEMCACHED"],
        }
    }
else:
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}

# One Redis that keeps what it is given, for the queue and for the channel layer. Without it both are in memory.
REDIS_URL = os.environ.get("REDIS_URL", "")
RQ_QUEUES = {"default": {"URL": REDIS_URL or "redis://127.0.0.1:6379/0", "DEFAULT_TIMEOUT": 60}}
if REDIS_URL:
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            # It waits 5 seconds for a message, and redis-py gives up after 5 seconds by itself: the longer one decides.
            "CONFIG": {"hosts": [{"address": REDIS_URL, "socket_timeout": 30}], "prefix": "postcards"},
        }
    }
else:
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "/static/"
STATIC_ROOT = os.environ.get("STATIC_ROOT") or BASE_DIR / "staticfiles"

SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
CSRF_COOKIE_SECURE = os.environ.get("USE_HTTPS", "") == "1"
SECURE_HSTS_SECONDS = 3600 if CSRF_COOKIE_SECURE else 0
SILENCED_SYSTEM_CHECKS = ["security.W008"]  # http is redirected in front of us

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": os.environ.get("LOG_LEVEL", "INFO")},
}
