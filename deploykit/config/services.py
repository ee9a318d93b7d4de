"""What an app stands on: caches, brokers, packages of the system and of Python."""

from __future__ import annotations

import re

from deploykit.agent.values import Redis, Service
from deploykit.config import models
from deploykit.config.check import Reader, shown
from deploykit.config.processes import Rules, listed, outside
from deploykit.config.project import Installed
from deploykit.config.toml import Path as Way

_SERVICE = re.compile(r"[a-z][a-z0-9_]{0,20}")
#: What `${...}` calls other things by.
_TAKEN = frozenset({"app", "data", "database", "static", "media", "files", "process", "redis"})
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\s*(\[[A-Za-z0-9._, -]*\])?\s*([(<>=!~@;].*)?")
#: A folder of the source, "." is all of it; editable or not, with extras or without.
_LOCAL = re.compile(r"(-e )?\.(/[A-Za-z0-9._/-]+)?(\[[A-Za-z0-9._, -]*\])?")
_APT = re.compile(r"[a-z0-9][a-z0-9.+-]+")


def redis(table: models.AppTable) -> Redis | None:
    """`redis = true` and its table: the cache of that name."""
    if isinstance(table.redis, models.RedisTable):
        return Redis(table.redis.memory, table.redis.port)
    return Redis() if table.redis else None


def services(reader: Reader, table: models.AppTable, way: Way) -> tuple[Service, ...]:
    """[apps.NAME.services], and the short forms `cache` and `broker`."""
    found: dict[str, Service] = {}
    if table.cache:
        found["cache"] = Service("cache", table.cache)
    if table.broker:
        found["broker"] = Service("broker", table.broker, persistent=table.broker == "redis")
    for name, each in table.services.items():
        at = (*way, "services", name)
        if not _SERVICE.fullmatch(name) or name in _TAKEN:
            what = f"{shown(name)} is taken" if name in _TAKEN else f"{shown(name)} is no service's name"
            reader.add(at, what, "lower-case letters, digits and _, beginning with a letter; such as sessions")
        if name in found:
            reader.add(at, f"`{name}` is set too: the short form of the same", "one of the two")
        if each.persistent and each.kind != "redis":
            reader.add((*at, "persistent"), "only a Redis can be one or the other", 'kind = "redis"')
        if each.kind == "rabbitmq" and (each.port or each.memory):
            key = "port" if each.port else "memory"
            reader.add((*at, key), "RabbitMQ is one server for all apps: it has port 5672", "no such key")
        found[name] = Service(name, each.kind, each.memory, each.persistent, each.port)
    return tuple(found.values())


def installed(rules: Rules) -> Installed:
    """What is installed beside the requirements."""
    table = rules.table
    for index, text in enumerate(table.packages):
        clean = text.strip()
        if not (_REQUIREMENT.fullmatch(clean) or _LOCAL.fullmatch(clean)) or not text.isprintable() or "/.." in clean:
            allowed = 'such as "sentry-sdk>=2"; a folder of the source is "./lib", all of it "." or "-e ."'
            rules.add(("packages", index), f"{shown(text)} is no requirement", allowed)
    for index, text in enumerate(table.constraints):
        if outside(text):
            rules.add(("constraints", index), f"{shown(text)} is not inside the source")
    for key in ("extras", "groups"):
        for index, text in enumerate(getattr(table, key)):
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text):
                rules.add((key, index), f"{shown(text)} is no name", 'such as "production"')
    for index, text in enumerate(table.apt):
        if not _APT.fullmatch(text):
            rules.add(("apt", index), f"{shown(text)} is no package's name", 'such as "libmagic1"')
    for way, url in (("index",), table.index), *((("extra_indexes", i), u) for i, u in enumerate(table.extra_indexes)):
        if url and not re.fullmatch(r"(https?|file)://[\x21-\x7e]+", url):
            rules.add(way, f"{shown(url)} is no URL", "a URL such as https://pypi.example/simple/")
        elif "@" in url.split("://", 1)[-1].split("/")[0]:
            what = "a password in an index's URL would be shown in plans"
            rules.add(way, what, 'the environment: UV_INDEX_URL = { secret = "NAME" } in [apps.NAME.env]')
    commands = listed(table.install)
    if commands and table.requirements is not None:
        rules.add(("install",), "requirements is set too: these commands are instead of it", "one of the two")
    for index, command in enumerate(commands):
        rules.command(command, "install", index)
    return Installed(
        tuple(text.strip() for text in table.packages), table.constraints, table.extras, table.groups, table.index,
        table.extra_indexes, commands, table.apt,
    )  # fmt: skip
