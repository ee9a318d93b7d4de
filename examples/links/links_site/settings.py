"""
Settings of Links, read from the environment with django-environ.
See https://django-environ.readthedocs.io/ for the forms DATABASE_URL and REDIS_URL can take.
"""

import sys
from pathlib import Path

import environ

BASE_DIR = Path(__file__).resolve().parent.parent

env = environ.Env(
    ALLOWED_HOSTS=(list, []),
    CSRF_TRUSTED_ORIGINS=(list, []),
    USE_HTTPS=(bool, False),
    APP_VERSION=(str, "dev"),
    LOG_LEVEL=(str, "INFO"),
)
if (BASE_DIR / ".env").is_file():
    env.read_env(BASE_DIR / ".env")

# Without a secret key this is somebody's laptop.
DEBUG = env.bool("DEBUG", default="SECRET_KEY" not in env)
SECRET_KEY = env.str("SECRET_KEY", default="not-a-secret") if DEBUG else env.str("SECRET_KEY")

ALLOWED_HOSTS = env("ALLOWED_HOSTS")
CSRF_TRUSTED_ORIGINS = env("CSRF_TRUSTED_ORIGINS")
APP_VERSION = env("APP_VERSION")

INSTALLED_APPS = [
    "board",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django_q",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "links_site.urls"
WSGI_APPLICATION = "links_site.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.messages.context_processors.messages",
                "board.context_processors.site",
            ]
        },
    }
]

DATABASES = {"default": env.db("DATABASE_URL", default=f"sqlite:///{BASE_DIR / 'db.sqlite3'}")}
DATABASES["default"]["CONN_MAX_AGE"] = 60
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = env.str("REDIS_URL", default="")
if REDIS_URL:
    CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": REDIS_URL,
            "KEY_PREFIX": "links",
        }
    }
else:
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}

# Tasks wait in the database for `manage.py qcluster`; on a laptop, and in tests, they are done at once.
Q_CLUSTER = {
    "name": "links",
    "orm": "default",
    "sync": env.bool("Q_SYNC", default=DEBUG or "test" in sys.argv),
    "workers": 1,
    "timeout": 60,
    "retry": 120,
    "max_attempts": 3,
    "catch_up": False,
}

SESSION_COOKIE_AGE = 60 * 60 * 24 * 365  # a vote is remembered for as long as the session

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = env.str("STATIC_ROOT", default=str(BASE_DIR / "staticfiles"))

SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = env("USE_HTTPS")
SECURE_HSTS_SECONDS = 3600 if env("USE_HTTPS") else 0
SILENCED_SYSTEM_CHECKS = ["security.W008"]  # http is redirected by the proxy

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": env("LOG_LEVEL")},
}
