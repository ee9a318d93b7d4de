"""What `add-app` recognises beside the web server, and what it writes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_detect import Memory, manage

from deploykit.companions import Companions, find
from deploykit.config import Project, loads
from deploykit.detect import detect
from deploykit.draft import Draft, app_table
from deploykit.edit import add_app, init_text

WSGI = {"site1/wsgi.py": "", "site1/asgi.py": ""}
CELERY = "import os\nfrom celery import Celery\napp = Celery('site1')\napp.config_from_object('django.conf:settings')\n"


def tree(settings: str = "", requirements: str = "django\n", **more: str) -> Memory:
    files = {"manage.py": manage("site1.settings"), "site1/__init__.py": "", "site1/settings.py": settings, **WSGI}
    extra = {name.replace("__", "/").replace("_py", ".py"): text for name, text in more.items()}
    return Memory({**files, "requirements.txt": requirements, **extra})


def found(source: Memory) -> Companions:
    return find(source, detect(source))


def written(source: Memory, name: str = "blog") -> tuple[dict[str, Any], Draft, Project]:
    """The drafted values, the draft, and what is read back from the file it is written into."""
    draft = app_table(name, f"../{name}", [f"{name}.example"], detect(source), find(source, detect(source)))
    text = add_app(init_text(), name, draft.values, draft.questions, draft.comments)
    return dict(draft.values), draft, loads(text, Path("/x/deploykit.toml"))


def test_nothing_beside_is_nothing() -> None:
    assert found(tree()) == Companions(folders={})
    values, draft, _ = written(tree())
    assert set(values) == {"source", "domains"} and draft.questions == ()


def test_celery_with_beat_and_one_redis_for_cache_and_broker() -> None:
    """As cookiecutter-django has it: one REDIS_URL, django-celery-beat whose scheduler the settings name."""
    settings = (
        'import environ\nenv = environ.Env()\nREDIS_URL = env("REDIS_URL", default="redis://redis:6379/0")\n'
        'INSTALLED_APPS = ["django_celery_beat"]\nCELERY_BROKER_URL = REDIS_URL\n'
        'CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"\n'
        'CACHES = {"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": REDIS_URL}}\n'
    )
    source = tree(settings, "django\ncelery\ndjango-redis\nredis\ndjango-celery-beat\n")
    source.files["site1/celery.py"] = CELERY
    beside = found(source)
    assert (beside.celery, beside.beat, beside.beat_scheduler) == ("site1", True, "")
    assert (beside.broker, beside.cache) == ("redis", "redis")
    values, _, project = written(source)
    port = values["services"]["broker"]["port"]
    assert values["services"]["broker"] == {"kind": "redis", "persistent": True, "port": port} and "redis" not in values
    assert values["env"] == {"REDIS_URL": "${broker.url}"}
    app = project.apps[0]
    assert {each.name: (each.command, each.once, each.signal) for each in app.processes} == {
        "worker": ("celery -A site1 worker --loglevel info --hostname $$@%h", False, "TERM"),
        "beat": ("celery -A site1 beat --loglevel info --schedule ${data.dir}/celerybeat-schedule", True, "TERM"),
    }
    assert app.services[0].persistent


def test_celery_with_names_of_its_own() -> None:
    settings = (
        'import os\nINSTALLED_APPS = ["django_celery_beat"]\nCELERY_BROKER_URL = os.environ["CELERY_BROKER_URL"]\n'
        'CELERY_RESULT_BACKEND = os.environ["CELERY_RESULT_BACKEND"]\n'
        'CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache",\n'
        '                      "LOCATION": os.environ["REDIS_URL"]}}\n'
    )
    source = tree(settings, "django\ncelery[redis]\n")
    source.files["site1/tasks/queue.py"] = CELERY.replace("app =", "tasks =")
    values, _, project = written(source)
    assert values["broker"] == "redis" and values["redis"] is True
    assert values["env"] == {"CELERY_RESULT_BACKEND": "${broker.celery}"}
    beat = values["processes"]["beat"]["command"]
    assert beat == (
        "celery -A site1.tasks.queue:tasks beat --loglevel info "
        "--scheduler django_celery_beat.schedulers:DatabaseScheduler"
    )
    assert {service.name for service in project.apps[0].services} == {"broker"}


def test_rabbitmq_by_url_and_by_parts() -> None:
    settings = (
        'import os\nhost = os.environ["RABBITMQ_HOST"]\nuser = os.environ["RABBITMQ_USERNAME"]\n'
        'CELERY_BROKER_URL = f"amqp://{user}@{host}/" + os.environ["RABBITMQ_VHOST"]\n'
    )
    source = tree(settings, "django\ncelery\n")
    source.files["site1/celery.py"] = CELERY
    values, _, _ = written(source)
    assert values["broker"] == "rabbitmq" and "redis" not in values
    assert values["env"] == {
        "RABBITMQ_HOST": "${broker.host}", "RABBITMQ_USERNAME": "${broker.user}", "RABBITMQ_VHOST": "${broker.vhost}",
    }  # fmt: skip


@pytest.mark.parametrize("periodic", [False, True])
def test_huey_ends_by_int_and_schedules_itself(periodic: bool) -> None:
    settings = 'INSTALLED_APPS = ["huey.contrib.djhuey"]\nHUEY = {"huey_class": "huey.RedisHuey"}\n'
    task = "from huey import crontab\nfrom huey.contrib.djhuey import db_periodic_task, task\n\n@task()\ndef a(): ...\n"
    source = tree(settings, "django\nhuey\nredis\n", app__tasks_py=task)
    if periodic:
        source.files["app/tasks.py"] += "\n@db_periodic_task(crontab(minute='0'))\ndef b(): ...\n"
    values, _, project = written(source)
    assert values["broker"] == "redis"
    process = project.apps[0].processes[0]
    assert (process.command, process.signal, process.once) == ("python manage.py run_huey", "INT", periodic)


def test_rq_has_its_queues_and_django_q_its_cluster() -> None:
    source = tree('INSTALLED_APPS = ["django_rq"]\nRQ_QUEUES = {"default": {}, "high": {"DB": 0}}\n', "django-rq\n")
    values, _, _ = written(source)
    assert values["processes"] == {"rq": {"command": "python manage.py rqworker default high"}}
    assert values["broker"] == "redis"
    values, _, _ = written(tree('INSTALLED_APPS = ["django_rq"]\n', "django-rq\nrq-scheduler\n"))
    assert values["processes"]["scheduler"] == {"command": "python manage.py rqscheduler", "once": True}
    values, _, _ = written(tree('INSTALLED_APPS = ["django_q"]\nQ_CLUSTER = {"orm": "default"}\n', "django-q2\n"))
    assert values["processes"] == {"qcluster": {"command": "python manage.py qcluster"}} and "broker" not in values
    values, _, _ = written(tree('INSTALLED_APPS = ["django_q"]\nQ_CLUSTER = {"redis": {"port": 1}}\n', "django-q2\n"))
    assert values["broker"] == "redis"


def test_channels_are_served_by_asgi_and_memcached_is_a_cache() -> None:
    settings = (
        'import os\nINSTALLED_APPS = ["daphne", "channels"]\nASGI_APPLICATION = "site1.asgi.application"\n'
        'CACHES = {"default": {"BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",\n'
        '                      "LOCATION": os.environ["MEMCACHED_LOCATION"]}}\n'
    )
    values, _, _ = written(tree(settings, "channels\n"))
    assert values["asgi"] == "site1.asgi:application" and values["cache"] == "memcached"
    assert values["env"] == {"MEMCACHED_LOCATION": "${cache.location}"}


def test_node_builds_before_collectstatic() -> None:
    source = tree()
    source.files |= {
        "frontend/package.json": '{"scripts": {"build": "vite build"}}', "frontend/package-lock.json": "{}",
        "package.json": '{"scripts": {"test": "x"}}', "docs/package.json": '{"scripts": {"build": "x"}}',
    }  # fmt: skip
    values, _, project = written(source)
    assert values["apt"] == ["nodejs", "npm"]
    assert project.apps[0].build.commands("after_checkout") == ("cd frontend && npm ci", "cd frontend && npm run build")


def test_extensions_and_geodjango() -> None:
    migration = (
        "operations = [TrigramExtension(), CreateExtension('ltree'),\n"
        "    migrations.RunSQL('CREATE EXTENSION IF NOT EXISTS \"uuid-ossp\"')]\n"
    )
    source = tree("INSTALLED_APPS = ['django.contrib.postgres']\n", "psycopg\n")
    source.files["blog/migrations/0001_x.py"] = migration
    assert written(source)[0]["database"] == {"kind": "postgres", "extensions": ["ltree", "pg_trgm", "uuid-ossp"]}
    geo = tree(
        "import dj_database_url\nDATABASES = {'default': dj_database_url.config()}\n"
        "INSTALLED_APPS = ['django.contrib.gis']\n", "psycopg\ndj-database-url\n",
    )  # fmt: skip
    values, _, _ = written(geo)
    assert values["database"]["extensions"] == ["postgis"] and "gdal-bin" in values["apt"]
    assert values["env"]["DATABASE_URL"] == "postgis://${database.user}@/${database.name}"


def test_what_cannot_be_known_is_asked() -> None:
    settings = (
        "import os\nfrom pathlib import Path\nBASE_DIR = Path(__file__).parent.parent\n"
        'EXPORT_DIR = BASE_DIR / "var" / "exports"\nCODE_DIR = BASE_DIR / "site1"\nMEDIA_ROOT = BASE_DIR / "media"\n'
        'INDEX_PATH = os.path.join(BASE_DIR, "index")\nKEY = os.environ["STRIPE_KEY"]\n'
    )
    source = tree(settings)
    source.files[".python-version"] = "3.12.4\n"
    _, draft, _ = written(source)
    assert draft.questions == (
        'python = "3.12"  # .python-version; without it: the host\'s own',
        'persist = ["var/exports/"]  # EXPORT_DIR is there: has it to outlive a release?',
        'persist = ["index/"]  # INDEX_PATH is there: has it to outlive a release?',
        'env.STRIPE_KEY = { env = "STRIPE_KEY" }  # the settings need it',
    )


@pytest.mark.parametrize(
    ("reading", "off"),
    [
        ('os.environ.get("DEBUG", "True") == "True"', "False"),
        ('os.environ.get("DEBUG", True)', ""),
        ('int(os.getenv("DEBUG", "1"))', "0"),
        ('env.bool("DEBUG", default=True)', ""),
        ('env("DEBUG") if environ.Env(DEBUG=(bool, True)) else 0', ""),
        ('os.environ.get("DEBUG", "False") == "True"', None),
        ('env.bool("DEBUG", False)', None),
    ],
)
def test_debug_that_is_on_unless_told(reading: str, off: str | None) -> None:
    values, _, _ = written(tree(f"import os, environ\nenv = environ.Env()\nDEBUG = {reading}\n"))
    assert values.get("env", {}).get("DEBUG") == off


def test_helpers_of_the_settings_own_and_files() -> None:
    settings = (
        'import os\nINSTALLED_APPS = ["huey.contrib.djhuey"]\n'
        'def words(name):\n    return os.environ.get(name, "").split(",")\n'
        "def other(value):\n    return str(value)\n"
        'ALLOWED_HOSTS = words("BLOG_ALLOWED_HOSTS")\nX = other("NOT_READ")\n'
        'CSRF = words("DJANGO_CSRF_TRUSTED_ORIGINS")\n'
        'NAME = os.environ.get("DATABASE_PATH", "x")\n'
        'DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": NAME}}\n'
        'HUEY = {"huey_class": "huey.SqliteHuey", "filename": os.environ.get("HUEY_PATH", "huey")}\n'
    )
    assert written(tree(settings, "huey\n"))[0]["env"] == {
        "BLOG_ALLOWED_HOSTS": "${app.domains}",
        "DATABASE_PATH": "${database.name}",
        "DJANGO_CSRF_TRUSTED_ORIGINS": "https://blog.example,http://blog.example",
        "HUEY_PATH": "${data.dir}/huey.sqlite3",
    }


def test_an_engine_by_name() -> None:
    settings = (
        'import os\nDATABASES = {"default": {"ENGINE": os.environ.get("SQL_ENGINE", "django.db.backends.sqlite3"),\n'
        '    "NAME": os.environ.get("SQL_DATABASE", "db.sqlite3"), "USER": os.environ.get("SQL_USER", "user")}}\n'
    )
    values, _, _ = written(tree(settings, "psycopg2-binary\n"))
    assert values["env"] == {
        "SQL_ENGINE": "django.db.backends.postgresql", "SQL_DATABASE": "${database.name}",
        "SQL_USER": "${database.user}",
    }  # fmt: skip
    assert "env" not in written(tree(settings))[0], "without a driver it is SQLite"


def test_a_host_and_a_port_want_a_port() -> None:
    settings = 'import os\nHOST, PORT = os.environ["REDIS_HOST"], os.environ.get("REDIS_PORT")\n'
    values, _, project = written(tree(settings, "redis\n"))
    assert values["redis"]["port"] >= 6400
    assert values["env"] == {"REDIS_HOST": "${redis.host}", "REDIS_PORT": "${redis.port}"}
    assert project.apps[0].redis is not None
