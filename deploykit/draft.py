"""What `fab add-app` writes about an app: what differs from the defaults, with reasons, and questions."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

from deploykit.agent.dataclass import dataclass
from deploykit.companions import Companions, builds, commands
from deploykit.detect import Detected


@dataclass(frozen=True)
class Draft:
    """The table of an app: values by key, a comment for some, and open questions."""

    values: Mapping[str, Any]
    comments: Mapping[str, str] = field(default_factory=dict)
    questions: tuple[str, ...] = ()


#: Always in an app's environment: see the recipes.
_GIVEN = frozenset(
    [
        *("SECRET_KEY", "ALLOWED_HOSTS", "CSRF_TRUSTED_ORIGINS", "DATABASE_URL", "STATIC_ROOT", "MEDIA_ROOT"),
        *("DJANGO_SETTINGS_MODULE", "HOME", "PATH", "LANG", "USER", "PORT", "PYTHONPATH"),
    ]
)

_SQLITE = r"(\w+_)?(SQLITE|DB|DATABASE)_(PATH|FILE|FILENAME)|(\w+_)?SQLITE_(DB|DATABASE|NAME|URL)"
_ENGINE = "django.db.backends.postgresql"
#: Many a project puts its own name before: VULNERABLECODE_DB_HOST.
_DATABASE = r"(\w+_)?(DB|DATABASE|POSTGRES|POSTGRESQL|SQL|RDS)"
#: Names by which settings commonly ask for what deploykit knows -> the value that answers them.
_ANSWERS: tuple[tuple[str, Any], ...] = (
    (f"{_DATABASE}_HOST(NAME)?", "${database.host}"),
    (f"{_DATABASE}_PORT", "${database.port}"),
    (f"{_DATABASE}_(DB|NAME|DATABASE)(_NAME)?", "${database.name}"),
    (f"{_DATABASE}_USER(NAME)?", "${database.user}"),
    (f"{_DATABASE}_PASS(WORD)?", ""),
    (f"{_DATABASE}_(ENGINE|BACKEND)", _ENGINE),
    (r"DJANGO_SECRET_KEY|DJANGO_SECRET|APP_SECRET_KEY", {"secret": "SECRET_KEY"}),
    (r"(\w+_)?ALLOWED_HOSTS?", "${app.domains}"),
    (r"(\w+_)?HUEY_(\w+_)?(PATH|FILE|FILENAME|DB)", "${data.dir}/huey.sqlite3"),
    (r"(\w+_)?STATIC_(ROOT|DIR)", "${static.root}"),
    (r"(\w+_)?MEDIA_(ROOT|DIR)", "${media.root}"),
    (r"(DJANGO_)?DATABASE_URL|DB_URL", "${database.url}"),
)
_PORTS = 6400  # from here on, where no other service listens


def app_table(
    name: str, source: str, domains: Sequence[str], detected: Detected, beside: Companions | None = None
) -> Draft:
    """What to write for a new app."""
    return _Drawing(name, source, domains, detected, beside or Companions()).draft()


class _Drawing:
    def __init__(self, name: str, source: str, domains: Sequence[str], detected: Detected, beside: Companions) -> None:
        self.name, self.domains, self.detected, self.beside = name, domains, detected, beside
        self.values: dict[str, Any] = {"source": source, "domains": list(domains)}
        self.comments: dict[str, str] = {}
        self.questions: list[str] = []
        self.env: dict[str, Any] = {}
        self.answers: list[tuple[str, Any]] = []

    def draft(self) -> Draft:
        self.code()
        self.database()
        self.stores()
        self.building()
        if self.detected.health:
            self.say("health", self.detected.health, "found in the URLs")
        self.variables()
        processes = commands(self.beside)
        if self.env:
            self.values["env"] = self.env
        if processes:
            self.values["processes"] = processes
            if "beat" in processes:
                self.comments["processes.beat.once"] = "never two of it, in a deploy too"
        return Draft(self.values, self.comments, tuple(self.questions))

    def say(self, key: str, value: Any, why: str) -> None:
        self.values[key] = value
        self.comments[key] = why

    def code(self) -> None:
        found, beside = self.detected, self.beside
        if found.others:
            others = ", ".join(other or "." for other in found.others)
            self.say("root", found.root or ".", f"there is a manage.py in {others} too")
        if beside.python_version:
            self.questions.append(f'python = "{beside.python_version}"  # .python-version; without it: the host\'s own')
        if not found.settings:
            self.questions.append('settings = "..."  # which module? manage.py names none that is there')
        if not found.requirements:
            what = "neither requirements.txt, uv.lock nor pyproject.toml was found"
            self.questions.append(f'requirements = "..."  # {what}')
        if not (found.wsgi or found.asgi):
            self.questions.append('wsgi = "...:application"  # neither wsgi.py nor asgi.py was found')
        elif beside.channels and found.asgi:
            self.say("asgi", found.asgi, "Channels: WebSockets and pages by one server")
        for setting, place in (beside.folders or {}).items():
            self.questions.append(f'persist = ["{place}"]  # {setting} is there: has it to outlive a release?')

    def database(self) -> None:
        found, beside = self.detected, self.beside
        extensions = [*(["postgis"] if beside.geo else []), *(each for each in beside.extensions if each != "postgis")]
        if found.database == "sqlite" and not beside.geo:
            self.say("database", "sqlite", "the settings know no other; its file is kept over releases")
        elif found.database == "mysql":
            question = 'database = { env = "DATABASE_URL" }  # the settings are for MySQL: whose server is it?'
            self.questions.append(question)
        elif extensions:
            why = "GeoDjango, and what migrations make" if beside.geo else "migrations make them"
            self.say("database", {"kind": "postgres", "extensions": extensions}, why)
            if beside.geo and found.database_url:
                self.env["DATABASE_URL"] = "postgis://${database.user}@/${database.name}"

    def stores(self) -> None:
        """Caches and brokers, and by which names the settings ask for them."""
        beside, read = self.beside, set(self.detected.env)
        redis = self.detected.redis
        cache = beside.cache == "redis" or (redis and beside.broker != "redis")
        shared = [each for each in read if re.fullmatch(r"(DJANGO_)?REDIS_UR[LI]", each)]
        parted = any(re.fullmatch(r"(\w+_)?REDIS_(HOST|PORT)\w*", each) for each in read)
        port = _PORTS + zlib.crc32(self.name.encode()) % 500
        one = beside.broker == "redis" and (cache or parted) and not any("BROKER" in each for each in read)
        if beside.cache == "memcached":
            self.say("cache", "memcached", "the settings have Memcached as a cache")
            self.answers.append((r"(\w+_)?MEMCACHED?(_(LOCATION|URL|SERVERS?|HOSTS?|ADDRESS))?", "${cache.location}"))
        if one and (shared or parted):
            # One name for cache and broker: one Redis for both, which keeps what it is given, by a URL that all read.
            self.values["services"] = {"broker": {"kind": "redis", "persistent": True, "port": port}}
            self.comments["services.broker.kind"] = "cache and broker by one name, so it must keep what it is given"
            self.redis_names("broker", "url")
            return
        if beside.broker:
            self.say("broker", beside.broker, "for the task queue; it keeps what it is given")
            if beside.broker == "rabbitmq":
                self.answers += [
                    (r"(\w+_)?(AMQP|RABBITMQ)_UR[LI]", "${broker.url}"),
                    (r"(\w+_)?RABBITMQ_(HOST|PORT|USER|PASSWORD|VHOST)(NAME)?", "${broker.*}"),
                ]
        if cache:
            self.say("redis", {"port": port} if parted else True, "settings or requirements mention it")
            self.redis_names("redis", "url")
        elif beside.broker == "redis":
            self.redis_names("broker", "celery" if beside.celery else "url")

    def redis_names(self, store: str, form: str) -> None:
        """The names by which a Redis is asked for; `form` is what its URL must be like."""
        broker = "broker" if self.beside.broker else store
        self.answers += [
            (r"(\w+_)?BROKER_URL|(\w+_)?CELERY_RESULT_BACKEND(_URL)?", f"${{{broker}.celery}}"),
            (r"CACHE_URL", f"${{{store}.url}}"),
            (r"(\w+_)?REDIS_(TLS_)?UR[LI]", f"${{{store}.{form}}}"),
            (r"(\w+_)?REDIS_(HOST|PORT|PASSWORD)(NAME)?", f"${{{store}.*}}"),
        ]

    def building(self) -> None:
        apt = ["binutils", "gdal-bin", "libproj-dev"] if self.beside.geo else []
        why = ["GeoDjango" if self.beside.geo else ""]
        steps = builds(self.beside, self.detected.root)
        if steps:
            apt += ["nodejs", "npm"]
            why.append("package.json has a build script")
            self.values["hooks"] = {"after_checkout": list(steps)}
        if apt:
            self.say("apt", apt, "; ".join(each for each in why if each))

    def variables(self) -> None:
        """What the settings read by names that deploykit does not set by itself."""
        given = set(_GIVEN)
        if "redis" in self.values:
            given.add("REDIS_URL")
        if "broker" in self.values:
            given |= {"BROKER_URL", "CELERY_BROKER_URL"}
        if "cache" in self.values:
            given.add("CACHE_URL")
        for variable, off in self.detected.debug.items():
            self.env[variable] = off
            self.comments[f"env.{variable}"] = "on unless told"
        for variable, needed in self.detected.env.items():
            if variable in given or variable in self.env:
                continue
            answer = next(
                (value for pattern, value in (*self.answers, *_ANSWERS) if re.fullmatch(pattern, variable)), None
            )
            if answer == _ENGINE and self.beside.geo:
                answer = "django.contrib.gis.db.backends.postgis"
            of_database = isinstance(answer, str) and answer.startswith(("${database.", "django."))
            if self.values.get("database") == "sqlite":
                file = re.fullmatch(_SQLITE, variable)
                answer = "${database.name}" if file else None if of_database else answer
            if re.fullmatch(r"\w+_CSRF_TRUSTED_ORIGINS", variable):
                answer = ",".join(f"{scheme}://{each}" for each in self.domains for scheme in ("https", "http"))
            if isinstance(answer, str) and answer.endswith(".*}"):
                parts = ("VHOST", "HOST", "PORT", "USER", "PASSWORD")
                part = next(each for each in parts if re.search(rf"_{each}(NAME)?$", variable))
                answer = answer.replace("*", part.lower())
            if answer is not None:
                self.env[variable] = answer
            elif needed:
                self.questions.append(f'env.{variable} = {{ env = "{variable}" }}  # the settings need it')
