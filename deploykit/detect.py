"""What a Django project says of itself, read without importing it: it may be hostile, or for another Python."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Protocol

from deploykit.agent.dataclass import dataclass
from deploykit.config import interpreters, requirements, syntax
from deploykit.errors import DeploykitError


class Tree(Protocol):
    """The files of one version of an app's source."""

    @property
    def paths(self) -> Sequence[str]:
        """All files, sorted, with "/" between folders, relative to the source's top."""

    @property
    def digest(self) -> str:
        """Names the content: equal trees have equal digests."""

    @property
    def label(self) -> str:
        """What a person calls it: "main@3f2a91c", "folder"."""

    @property
    def folder(self) -> Path | None:
        """The folder it was read from, if it was a folder."""

    def read(self, path: str) -> bytes:
        """The content of a file. Raises KeyError when it is not in the tree."""


@dataclass(frozen=True)
class Detected:
    """What was found. "" and () mean that nothing was; paths are relative to the source's top."""

    root: str  # manage.py's folder, "" is the top
    others: tuple[str, ...] = ()  # further folders with a manage.py
    settings: str = ""
    wsgi: str = ""  # "config.wsgi:application"
    asgi: str = ""
    requirements: tuple[str, ...] = ()
    requires_python: str = ""  # ">=3.11" of pyproject.toml
    static_url: str | None = None  # the literal of STATIC_URL
    static_root: bool = False  # whether STATIC_ROOT is set
    media_url: str | None = None
    media: bool = False  # whether MEDIA_ROOT or MEDIA_URL is mentioned
    database: str = ""  # "postgres", "sqlite", "mysql": what the project seems made for
    database_url: bool = False  # whether the settings read DATABASE_URL
    redis: bool = False
    whitenoise: bool = False
    health: str = ""  # "/healthz/"
    env: Mapping[str, bool] = field(default_factory=dict)  # variables the settings read -> whether they must be set
    truths: Mapping[str, str] = field(default_factory=dict)  # some of them -> the text that they are compared with
    debug: Mapping[str, str] = field(default_factory=dict)  # DEBUG and the like, on by default -> what turns it off
    perhaps: tuple[str, ...] = ()  # those that must be set only if something else is so
    by_hand: str = ""  # the settings that manage.py itself names, when they are there


ASIDE = {
    "node_modules",
    "site-packages",
    ".venv",
    "venv",
    ".tox",
    ".git",
    "tests",
    "test",
    "docs",
    "examples",
}
_UNFIT = ("dev", "develop", "development", "local", "test", "tests", "testing", "debug")
_LIVE = ("production", "prod", "live", "deploy")
_HEALTH = re.compile(r"(?:[a-z0-9_-]+/)*(?:-/)?(healthz|health|health[-_]?check|ht|up|livez|readyz|heartbeat)/?")


def find_root(tree: Tree, name: str = "", settings: str = "") -> tuple[str, tuple[str, ...]]:
    """(the folder of manage.py, other folders that have one): the shallowest, vendored and test folders last.

    `settings` is the module that the user has named: the folder that has it comes first, and there need be no
    manage.py: then what is asked of Django is asked by `python -m django`, from the source's top. The same where there
    is only a wsgi.py, from the folder that its settings are found from.
    Raises DeploykitError when there is none of all that. `name` is the app's, for the message.
    """
    files = set(tree.paths)
    folders = [posixpath.dirname(path) for path in tree.paths if posixpath.basename(path) == "manage.py"]
    if not folders and settings:
        return "", ()
    if not folders and (served := _served(tree, files)):
        return served[0], ()
    if not folders:
        place = str(tree.folder or tree.label or "the source")
        tops = sorted({path.split("/")[0] + ("/" if "/" in path else "") for path in tree.paths})
        seen = ", ".join(tops[:8]) + (", ..." if len(tops) > 8 else "")
        what = f"there is no manage.py among its {len(tree.paths)} files" + (f" ({seen})" if seen else "")
        todo = "point `source` at a Django project; is manage.py ignored by git or by `exclude`?\n"
        todo += "a project that has none, since all of it is an installed package: name its `settings`"
        raise DeploykitError(what, f"[apps.{name}] {place}" if name else place, todo)

    def has(folder: str) -> bool:
        return bool(settings and syntax.path_of(settings, folder, files.__contains__))

    def order(folder: str) -> tuple[bool, bool, bool, int, str]:
        parts = folder.split("/") if folder else []
        text = tree.read(posixpath.join(folder, "manage.py"))
        handed = syntax.module("", text).imports  # to a module of its own
        django = b"DJANGO_SETTINGS_MODULE" in text or any(
            syntax.path_of(name, folder, files.__contains__) for name in handed
        )
        return not has(folder), bool(ASIDE & set(parts)), not django, len(parts), folder

    first, *rest = sorted(folders, key=order)
    if settings and not has(first) and ASIDE & set(first.split("/")):
        return "", tuple(sorted(folders))  # a test's or an example's manage.py has nothing to do with these settings
    return first, tuple(rest)


def _served(tree: Tree, files: set[str]) -> tuple[str, str] | None:
    """(folder, settings) by the shallowest wsgi.py or asgi.py whose settings are there."""
    names = {"wsgi.py", "asgi.py"}
    places = [path for path in tree.paths if posixpath.basename(path) in names and not ASIDE & set(path.split("/"))]
    for path in sorted(places, key=lambda each: (each.count("/"), each)):
        root = posixpath.dirname(posixpath.dirname(path))
        settings = syntax.module(path, tree.read(path)).settings
        if settings and syntax.path_of(settings, root, files.__contains__):
            return root, settings
    return None


def detect(tree: Tree, root: str | None = None, settings: str | None = None, name: str = "") -> Detected:
    """Reads the project. `root` and `settings` are what the user has set already.

    Raises DeploykitError when there is neither a manage.py nor `settings`; all else that is not found stays empty.
    """
    others: tuple[str, ...] = ()
    if root is None:
        root, others = find_root(tree, name, settings or "")
    files = set(tree.paths)
    parsed: dict[str, syntax.Module] = {}

    def read(path: str) -> bytes | None:
        return tree.read(path) if path in files else None

    def module(path: str) -> syntax.Module:
        if path not in parsed:
            parsed[path] = syntax.module(path, read(path) or b"")
        return parsed[path]

    served = None if posixpath.join(root, "manage.py") in files else _served(tree, files)
    settings = settings or (served[1] if served and served[0] == root else None)
    chosen = settings or _settings(root, files, module)
    # Settings that are not in the source (a package's, a configuration file) build on those that are.
    source = chosen if syntax.path_of(chosen, root, files.__contains__) else _settings(root, files, module)
    chain = list(syntax.chain(source, root, read)) if source else []
    texts = [text for each in chain for text in each.texts]
    assigned = {name for each in chain for name in each.assigned}
    listed = requirements.find(tree, root)
    packages = requirements.names(tree, listed)
    env: dict[str, bool] = {}
    for each in chain:
        for variable, needed in each.env.items():
            if variable != "DJANGO_SETTINGS_MODULE":
                env.setdefault(variable, needed)  # the nearest module knows best
    package = source.split(".")[0]
    by_hand = _by_hand(root, files, module)
    return Detected(
        root=root,
        others=others,
        settings=chosen,
        wsgi=_application("wsgi", _literal(chain, "WSGI_APPLICATION"), root, package, files),
        asgi=_application("asgi", _literal(chain, "ASGI_APPLICATION"), root, package, files),
        requirements=listed,
        requires_python=interpreters.required(tree, (root, "")),
        static_url=_literal(chain, "STATIC_URL"),
        static_root="STATIC_ROOT" in assigned,
        media_url=_literal(chain, "MEDIA_URL"),
        media=bool({"MEDIA_ROOT", "MEDIA_URL"} & (assigned | set(texts))),
        database=_database(packages, texts),
        database_url="DATABASE_URL" in env,
        redis="REDIS_URL" in env or bool(_REDIS & packages) or any(_redis(text) for text in texts),
        whitenoise="whitenoise" in packages or any(text.startswith("whitenoise.") for text in texts),
        health=_health(_literal(chain, "ROOT_URLCONF") or f"{package}.urls", root, files, module),
        env=dict(sorted(env.items())),
        debug=_debug(chain, env),
        perhaps=tuple(sorted({name for each in chain for name in each.perhaps})),
        truths={name: text for each in reversed(chain) for name, text in each.truths.items()},
        by_hand=by_hand if by_hand and syntax.path_of(by_hand, root, files.__contains__) else "",
    )


def _by_hand(root: str, files: set[str], module: Parsed) -> str:
    """The settings that manage.py names, or the module of the project's own that it hands everything to."""
    manage = module(posixpath.join(root, "manage.py"))
    handed = (syntax.path_of(name, root, files.__contains__) for name in manage.imports)
    return manage.settings or next((found for path in handed if path and (found := module(path).settings)), "")


def _settings(root: str, files: set[str], module: Parsed) -> str:
    """wsgi.py's module, since that is what a server runs; else manage.py's.

    `settings.dev` yields to a `settings.production` beside it: `wagtail start` names dev in both files.
    """

    def exists(name: str) -> bool:
        return bool(name) and bool(syntax.path_of(name, root, files.__contains__))

    by_hand = _by_hand(root, files, module)
    package = by_hand.split(".")[0]
    wsgi = posixpath.join(root, package, "wsgi.py")
    served = module(wsgi).settings if package and wsgi in files else ""
    found = next((name for name in (served, by_hand) if exists(name)), "")
    if not found:
        places = [
            path
            for path in sorted(files)
            if re.fullmatch(r"[^/]+/settings(\.py|/__init__\.py)", posixpath.relpath(path, root or "."))
        ]
        found = posixpath.relpath(places[0], root or ".").split("/")[0] + ".settings" if len(places) == 1 else ""
    head, _, tail = found.rpartition(".")
    if head and tail in _UNFIT:
        found = next((f"{head}.{live}" for live in _LIVE if exists(f"{head}.{live}")), found)
    return found


def _debug(chain: Sequence[syntax.Module], env: Mapping[str, bool]) -> dict[str, str]:
    """Switches by the name of DEBUG that are on when nobody sets them, and the text that turns each off.

    An empty text is the only false one to `os.environ.get("DEBUG", True)`, and false to all that parse a default bool.
    """
    defaults = {name: value for each in reversed(chain) for name, value in each.defaults.items()}
    found = {}
    for name in env:
        value = defaults.get(name)
        if re.fullmatch(r"([A-Z0-9]+_)?DEBUG", name) and str(value).lower() in ("1", "true", "yes", "on", "y", "t"):
            found[name] = "" if value is True else "0" if str(value) == "1" else "False"
    return found


class Parsed(Protocol):
    def __call__(self, path: str, /) -> syntax.Module: ...


def _literal(chain: Sequence[syntax.Module], name: str) -> str | None:
    """The text a setting is given in the nearest module that sets it; None when it is none or no literal."""
    for each in chain:
        if name in each.assigned:
            value = each.literals[name]
            return value if isinstance(value, str) else None
    return None


def _application(kind: str, literal: str | None, root: str, package: str, files: set[str]) -> str:
    head, _, tail = (literal or "").rpartition(".")
    if head and syntax.path_of(head, root, files.__contains__):
        return f"{head}:{tail}"
    if package and posixpath.join(root, package, f"{kind}.py") in files:
        return f"{package}.{kind}:application"
    depth = len(root.split("/")) if root else 0
    found = [
        path
        for path in sorted(files)
        if path.startswith(root) and path.endswith(f"/{kind}.py") and path.count("/") == depth + 1
    ]
    return f"{found[0].split('/')[-2]}.{kind}:application" if len(found) == 1 else ""


_REDIS = frozenset({"redis", "django-redis", "channels-redis", "django-rq", "rq", "valkey", "django-valkey"})


def _redis(text: str) -> bool:
    return (
        text.startswith(("redis://", "rediss://", "unix://", "django_redis.", "channels_redis."))
        or ".cache.backends.redis." in text
    )


def _database(packages: frozenset[str], texts: Sequence[str]) -> str:
    engines = " ".join(text for text in texts if text.startswith("django.") and ".backends." in text)
    if any(name.startswith("psycopg") for name in packages) or "postg" in engines:
        return "postgres"
    if {"mysqlclient", "pymysql"} & packages or "mysql" in engines:
        return "mysql"
    return "sqlite" if "sqlite3" in engines or any(text.startswith("sqlite:") for text in texts) else ""


def _health(urls: str, root: str, files: set[str], module: Parsed, before: str = "", depth: int = 0) -> str:
    """The first route that looks like a health check; includes are followed where their prefix is plain text."""
    path = syntax.path_of(urls, root, files.__contains__)
    if not path or depth > 3:
        return ""
    for pattern, included in module(path).routes:
        plain = before + pattern.removeprefix("^").removesuffix("$").removesuffix("/?")
        if not re.fullmatch(r"[A-Za-z0-9/_-]*", plain):
            continue
        if included and included != "?":
            found = _health(included, root, files, module, plain, depth + 1)
            if found:
                return found
        elif _HEALTH.fullmatch(plain):
            return f"/{plain}"
    return ""


def check_python(wanted: str, version: str, where: str) -> None:
    """Raises DeploykitError when the interpreter `version` ("3.11.2") does not satisfy `wanted` (">=3.12")."""
    if wanted and not interpreters.fits(wanted, version):
        lowest = re.search(r"[>~=]=\s*(3\.\d+)", wanted)
        todo = f'set python = "{lowest[1]}" in its table' if lowest else "set `python` in its table"
        raise DeploykitError(f"it wants Python {wanted}, and this is {version}", where, todo)
