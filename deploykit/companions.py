"""What a project needs beside its web server, read from its source: task queues, caches, brokers, Node, extensions.

Only `fab add-app` asks: it reads every Python file, which a deploy has no time for.
"""

from __future__ import annotations

import ast
import json
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence

from deploykit.agent.dataclass import dataclass
from deploykit.config import requirements, syntax
from deploykit.detect import ASIDE, Detected, Tree


@dataclass(frozen=True)
class Companions:
    """What was found. "" and () and False mean that nothing was; paths are relative to the source's top."""

    celery: str = ""  # what follows `celery -A`
    beat: bool = False
    beat_scheduler: str = ""  # of django-celery-beat, where the settings do not name it themselves
    huey: bool = False
    huey_periodic: bool = False
    rq: tuple[str, ...] = ()  # queues of Django-RQ
    rq_scheduler: bool = False  # rq-scheduler, a program of its own
    qcluster: bool = False  # Django-Q or Django-Q2
    channels: bool = False
    node: str | None = None  # the folder of a package.json with a build script; "" is the top
    node_clean: bool = False  # with a package-lock.json
    cache: str = ""  # "redis" or "memcached"
    broker: str = ""  # "redis" or "rabbitmq"
    geo: bool = False
    extensions: tuple[str, ...] = ()  # of PostgreSQL, that migrations make
    python_version: str = ""  # of .python-version
    folders: Mapping[str, str] | None = None  # settings that name a folder of the source -> the folder


#: Django's own operations, by what they create: django.contrib.postgres.operations.
_EXTENSIONS = {
    "BloomExtension": "bloom",
    "BtreeGinExtension": "btree_gin",
    "BtreeGistExtension": "btree_gist",
    "CITextExtension": "citext",
    "CryptoExtension": "pgcrypto",
    "HStoreExtension": "hstore",
    "TrigramExtension": "pg_trgm",
    "UnaccentExtension": "unaccent",
}
_CREATED = re.compile(
    r"\b(" + "|".join(_EXTENSIONS) + r")\(|CreateExtension\(\s*(?:name=)?[\"']([a-z0-9_-]+)[\"']"
    r"|CREATE EXTENSION (?:IF NOT EXISTS )?\"?([a-z0-9_-]+)",
    re.IGNORECASE,
)
_CELERY = re.compile(r"^(\w+)(?:\s*:[^=\n]+)?\s*=\s*(?:celery\.)?Celery\(", re.MULTILINE)
_PERIODIC = re.compile(r"^\s*@(?:\w+\.)?(?:db_)?periodic_task\(", re.MULTILINE)
_BEAT = re.compile(r"\b(?:CELERY_?)?BEAT_SCHEDULE\b|\bbeat_schedule\b|\badd_periodic_task\(", re.IGNORECASE)
#: Settings that name a folder which is neither code, nor static, nor media.
_FOLDER = re.compile(
    r"(?!.*(?:STATIC|MEDIA|TEMPLATE|LOCALE|FIXTURE|TEST))(?!(?:BASE|PROJECT|SITE|APPS?|ROOT)_?(?:ROOT|DIR|PATH)?$)"
    r"[A-Z][A-Z0-9_]*_(?:ROOT|DIR|PATH|FOLDER|LOCATION)"
)


def find(tree: Tree, detected: Detected) -> Companions:
    """Reads the project that `detected` is about."""
    return _Search(tree, detected).companions()


class _Search:
    def __init__(self, tree: Tree, detected: Detected) -> None:
        self.tree, self.root = tree, detected.root
        self.files = set(tree.paths)
        self.chain = list(syntax.chain(detected.settings, detected.root, self._read)) if detected.settings else []
        self.texts = {text for each in self.chain for text in each.texts}
        self.assigned = {name for each in self.chain for name in each.assigned}
        self.packages = requirements.names(tree, detected.requirements)
        self.package = detected.settings.split(".")[0]
        self.sources = {path: self._text(path) for path in self._python()}

    def companions(self) -> Companions:
        celery = self._celery()
        beat = bool(celery) and self._beat()
        scheduled = "django_celery_beat" in self.texts and not any("BEAT_SCHEDULER" in each for each in self.assigned)
        rq = self._queues() if self._installed("django_rq") else ()
        huey = self._installed("huey.contrib.djhuey") or self._installed("bx_django_utils.huey")
        node, clean = self._node()
        return Companions(
            celery=celery,
            beat=beat,
            beat_scheduler="django_celery_beat.schedulers:DatabaseScheduler" if beat and scheduled else "",
            huey=huey,
            huey_periodic=huey and any(_PERIODIC.search(text) for text in self.sources.values()),
            rq=rq,
            rq_scheduler=bool(rq) and "rq-scheduler" in self.packages,
            qcluster=self._installed("django_q"),
            channels=self._installed("channels") or self._installed("daphne"),
            node=node,
            node_clean=clean,
            cache=self._cache(),
            broker=self._broker(celery, huey, bool(rq)),
            geo=any("django.contrib.gis" in text for text in self.texts),
            extensions=self._extensions(),
            python_version=self._python_version(),
            folders=self._folders(),
        )

    def _read(self, path: str) -> bytes | None:
        return self.tree.read(path) if path in self.files else None

    def _text(self, path: str) -> str:
        return self.tree.read(path).decode("utf-8", "replace")

    def _python(self) -> Iterator[str]:
        for path in self.tree.paths:
            inside = posixpath.relpath(path, self.root or ".")
            if path.endswith(".py") and not inside.startswith("..") and not ASIDE & set(inside.split("/")[:-1]):
                yield path

    def _installed(self, app: str) -> bool:
        """Whether INSTALLED_APPS has it: by its name, or by its AppConfig's."""
        return any(text == app or re.fullmatch(re.escape(app) + r"\.apps\.\w+", text) for text in self.texts)

    def _celery(self) -> str:
        found = {path: match[1] for path, text in self.sources.items() if (match := _CELERY.search(text))}
        own = posixpath.join(self.root, self.package, "celery.py")
        if own in found:
            return self.package  # celery looks for PACKAGE.celery by itself
        if not found:
            return ""
        path = min(found, key=lambda each: (each.count("/"), each))
        module = posixpath.relpath(path, self.root or ".").removesuffix(".py").removesuffix("/__init__")
        name = module.replace("/", ".")
        if name.endswith(".celery"):
            return name.removesuffix(".celery")
        return name if found[path] in ("app", "celery") else f"{name}:{found[path]}"

    def _beat(self) -> bool:
        if self._installed("django_celery_beat") or any(_BEAT.fullmatch(name) for name in self.assigned):
            return True
        return any("elery" in text and _BEAT.search(text) for text in self.sources.values())

    def _queues(self) -> tuple[str, ...]:
        for each in self.chain:
            for name, value in _assignments(self._read(each.path) or b""):
                if name == "RQ_QUEUES" and isinstance(value, ast.Dict):
                    keys = [key.value for key in value.keys if isinstance(key, ast.Constant)]
                    if keys:
                        return tuple(str(key) for key in keys if re.fullmatch(r"[\w.-]+", str(key)))
        return ("default",)

    def _cache(self) -> str:
        kinds = [
            kind
            for kind, marks in (
                ("redis", ("django_redis.cache", ".cache.backends.redis.", "django_valkey.", "redis_cache.")),
                ("memcached", (".cache.backends.memcached.", "django_bmemcached", "django_pylibmc")),
            )
            if any(mark in text for text in self.texts for mark in marks)
        ]
        if kinds:
            return kinds[0]
        read = {name for each in self.chain for name in each.env}
        return "memcached" if any(name.startswith("MEMCACHE") for name in read) else ""

    def _broker(self, celery: str, huey: bool, rq: bool) -> str:
        if rq or self._installed("channels_redis") or any(text.startswith("channels_redis.") for text in self.texts):
            return "redis"
        if self._installed("django_q"):
            own = [
                value
                for each in self.chain
                for name, value in _assignments(self._read(each.path) or b"")
                if name == "Q_CLUSTER"
            ]
            return "redis" if any("redis" in ast.dump(value) for value in own) else ""
        if huey:
            words = " ".join(self.texts)
            return "redis" if "RedisHuey" in words or ("redis" in self.packages and "SqliteHuey" not in words) else ""
        if not celery:
            return ""
        everything = self.texts | {
            text for path in self.sources if "celery" in path for text in self._module(path).texts
        }
        if any(text.startswith(("amqp:", "pyamqp:", "rabbitmq")) for text in everything):
            return "rabbitmq"
        return (
            "redis" if "redis" in self.packages or any("redis" in text.lower() for text in everything) else "rabbitmq"
        )

    def _module(self, path: str) -> syntax.Module:
        return syntax.module(path, self.tree.read(path))

    def _node(self) -> tuple[str | None, bool]:
        """The shallowest package.json that can be built, and whether its versions are locked for npm."""
        for path in sorted(self.files, key=lambda each: (each.count("/"), each)):
            folder, name = posixpath.split(path)
            if name != "package.json" or path.count("/") > 3 or ASIDE & set(folder.split("/")):
                continue
            try:
                scripts = json.loads(self._text(path)).get("scripts", {})
            except (ValueError, AttributeError):
                continue
            if isinstance(scripts, Mapping) and "build" in scripts:
                return folder, posixpath.join(folder, "package-lock.json") in self.files
        return None, False

    def _extensions(self) -> tuple[str, ...]:
        found: set[str] = set()
        for path, text in self.sources.items():
            if "/migrations/" in f"/{path}":
                for operation, created, statement in _CREATED.findall(text):
                    found.add(_EXTENSIONS.get(operation, "") or created or statement.lower())
        return tuple(sorted(found - {""}))

    def _python_version(self) -> str:
        for folder in dict.fromkeys((self.root, "")):
            path = posixpath.join(folder, ".python-version")
            if path in self.files:
                match = re.search(r"^\s*(?:python-|cpython-)?(3\.\d+)", self._text(path), re.MULTILINE)
                return match[1] if match else ""
        return ""

    def _folders(self) -> dict[str, str]:
        """Settings such as `EXPORT_DIR = BASE_DIR / "exports"` whose folder has no code in it."""
        found = {}
        for each in self.chain:
            for name, value in _assignments(self._read(each.path) or b""):
                inside = _below_base(value)
                place = posixpath.normpath(posixpath.join(self.root, inside)) if inside else ""
                if _FOLDER.fullmatch(name) and place and not place.startswith(".."):
                    there = [
                        path for path in self.files if path.startswith(f"{place}/") and not path.endswith("/.gitkeep")
                    ]
                    if not there and place not in self.files:
                        found[name] = f"{place}/"
        return found


def _assignments(content: bytes) -> Iterator[tuple[str, ast.expr]]:
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value


def _below_base(value: ast.expr) -> str:
    """ "a/b" for `BASE_DIR / "a" / "b"` and `os.path.join(BASE_DIR, "a", "b")`; "" for anything else."""
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Div):
        if not (isinstance(value.right, ast.Constant) and isinstance(value.right.value, str)):
            return ""
        before = "" if isinstance(value.left, ast.Name) and "DIR" in value.left.id else _below_base(value.left)
        known = isinstance(value.left, ast.Name) or before
        return posixpath.join(before, value.right.value) if known else ""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr == "join":
        first, *rest = value.args or [value]
        words = [each.value for each in rest if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        if isinstance(first, ast.Name) and "DIR" in first.id and words and len(words) == len(rest):
            return posixpath.join(*words)
    return ""


def commands(beside: Companions) -> dict[str, dict[str, object]]:
    """[apps.NAME.processes] for the task queues that were found, by the words of their own documentation.

    Celery's workers finish what they hold at TERM, RQ's and Django-Q's too; Huey's consumer does at INT, and at TERM
    interrupts it: docs.celeryq.dev (workers), python-rq.org/docs/workers, huey.readthedocs.io (consumer). The process's
    number names a Celery worker: RabbitMQ refuses a second one of the same name, and a deploy has two for a while.
    """
    found: dict[str, dict[str, object]] = {}
    if beside.celery:
        found["worker"] = {"command": f"celery -A {beside.celery} worker --loglevel info --hostname $$@%h"}
    if beside.beat:
        how = (
            f"--scheduler {beside.beat_scheduler}"
            if beside.beat_scheduler
            else "--schedule ${data.dir}/celerybeat-schedule"
        )
        found["beat"] = {"command": f"celery -A {beside.celery} beat --loglevel info {how}", "once": True}
    if beside.huey:
        found["huey"] = {"command": "python manage.py run_huey", "stop_signal": "INT"}
        if beside.huey_periodic:
            found["huey"]["once"] = True  # its consumer is the scheduler, too
    if beside.rq:
        found["rq"] = {"command": f"python manage.py rqworker {' '.join(beside.rq)}"}
    if beside.rq_scheduler:
        found["scheduler"] = {"command": "python manage.py rqscheduler", "once": True}
    if beside.qcluster:
        found["qcluster"] = {"command": "python manage.py qcluster"}
    return found


def builds(beside: Companions, root: str) -> Sequence[str]:
    """Commands that build what Node builds, from the folder of manage.py."""
    if beside.node is None:
        return ()
    place = posixpath.relpath(beside.node or ".", root or ".")
    there = "" if place == "." else f"cd {place} && "
    return (f"{there}{'npm ci' if beside.node_clean else 'npm install'}", f"{there}npm run build")
