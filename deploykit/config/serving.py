"""How an app is served: what nginx does beside the app itself, and the configuration files the app reads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from posixpath import normpath
from urllib.parse import unquote

from deploykit.agent.values import ConfigFile, Location, Site, all_below
from deploykit.config import models
from deploykit.config.check import nearest, shown
from deploykit.config.processes import URL_PATH, Rules, listed, outside

_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
_USER = re.compile(r"[A-Za-z0-9._@-]{1,64}")

#: Where deploykit itself answers, in every site.
_TAKEN = ("/.well-known/acme-challenge", "/deploykit-unavailable")

#: What says how an answer is sent, and what each answer has of its own. Twice, or changed, they break it.
_OWN_HEADERS = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "date",
        "keep-alive",
        "location",
        "server",
        "set-cookie",
        "status",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "www-authenticate",
    }
)


def site(rules: Rules) -> Site:
    """[apps.NAME.nginx]; its users' passwords may still have to be fetched, and come later."""
    table = rules.table.nginx
    if not isinstance(table, models.NginxTable):
        table = models.NginxTable()
    locations = tuple(_location(rules, url, each) for url, each in table.locations.items())
    for path, target in table.redirects.items():
        _redirect(rules, path, target)
    for user in table.basic_auth:
        if not _USER.fullmatch(user):
            rules.add(("nginx", "basic_auth", user), f"{shown(user)} is no user's name", "letters, digits, . _ @ and -")
    _once(rules, table)
    return Site(
        locations,
        _headers(rules, table.headers, "nginx", "headers"),
        tuple(table.redirects.items()),
        (),
        tuple(dict.fromkeys(_proxy(rules, index, text) for index, text in enumerate(table.proxies))),
        _snippet(rules, table.snippet, "nginx", "snippet"),
    )


def _once(rules: Rules, table: models.NginxTable) -> None:
    """A path leads to one thing. (What the settings say of static and media is not known here: the recipe looks.)"""
    kinds = ("static", "media")
    taken = {value: key for key, value in ((key, getattr(rules.table, key)) for key in kinds) if isinstance(value, str)}
    for name, process in rules.table.processes.items():
        for index, path in enumerate(process.paths):
            if path in taken:
                rules.add(("processes", name, "paths", index), f"{path} leads to {taken[path]} already", "another path")
            taken[path] = name
    for url, location in table.locations.items():
        there = taken.get(url, "")
        if there and (location.process not in ("", there) or (location.folder and there not in kinds)):
            what = "process" if location.process else "folder"
            rules.add(("nginx", "locations", url, what), f"{url} leads to {there} already", "another path")
    for path in table.redirects:
        if path in taken or path in table.locations:
            rules.add(("nginx", "redirects", path), f"{path} has an answer of its own already", "another path")


def _redirect(rules: Rules, path: str, target: str) -> None:
    way = ("nginx", "redirects", path)
    plain = unquote(path)
    if not re.fullmatch(r"/[^?#]*", path) or not plain.isprintable():
        rules.add(way, f"{shown(path)} is no path", 'a path such as "/old/"')
    elif not re.fullmatch(r"(/(?!/)|https?://[^/])[\x21-\x7e]*", target):
        rules.add(way, f"{shown(target)} leads nowhere", 'a path such as "/new/", or a URL')
    elif plain.startswith(_TAKEN):
        rules.add(way, f"{shown(path)} is deploykit's own", "another path")
    elif target == path or (all_below(path, target) and target.startswith(path)):
        rules.add(way, f"{shown(path)} would lead to itself again and again", "a path that is not below it")


def _proxy(rules: Rules, index: int, text: str) -> str:
    """An address or a network, as nginx writes it."""
    if text == "unix:":
        return text
    from ipaddress import ip_network  # slow to import, and rarely needed

    try:
        found = ip_network(text, strict=False)
    except ValueError:
        rules.add(("nginx", "proxies", index), f"{shown(text)} is no address", 'such as "10.0.0.0/8", or "unix:"')
        return text
    return str(found)


def _location(rules: Rules, url: str, table: models.LocationTable) -> Location:
    way = ("nginx", "locations", url)
    if not URL_PATH.fullmatch(url):
        rules.add(way, f"{shown(url)} is no path", 'a path such as "/docs/"')
    elif url.startswith(_TAKEN):
        rules.add(way, f"{shown(url)} is deploykit's own", "another path")
    folders = listed(table.folder)
    for text in folders:
        if outside(text):
            rules.add((*way, "folder"), f"{shown(text)} is not inside the source")
        elif not PurePosixPath(text).parts:
            rules.add((*way, "folder"), "the whole source is nothing to be served", "a folder of it")
    if folders and not url.endswith("/"):
        rules.add(way, "a path whose files are served ends with /", f'"{url}/"')
    if folders and table.process:
        rules.add((*way, "process"), "files are served, or a process answers: not both")
    if folders and url != "/" and (table.timeout or table.max_body):
        key = "timeout" if table.timeout else "max_body"
        rules.add((*way, key), "files are served here: no app is waited for, and nothing is sent to it")
    process = rules.table.processes.get(table.process)
    if table.process and process is None:
        meant = nearest(table.process, rules.table.processes)
        what = f"there is no process {shown(table.process)}"
        rules.add((*way, "process"), what, ", ".join(rules.table.processes), meant and f'"{meant}"')
    elif process is not None and not (process.wsgi or process.asgi):
        rules.add((*way, "process"), f"{shown(table.process)} is no web server", "a process with wsgi or asgi")
    return Location(
        url,
        tuple(str(PurePosixPath(text)) for text in folders),
        table.process,
        rules.size(table.max_body, *way, "max_body") if table.max_body else 0,
        table.timeout,
        _headers(rules, table.headers, *way, "headers"),
        _snippet(rules, table.snippet, *way, "snippet"),
    )


def _headers(rules: Rules, headers: Mapping[str, str], *way: str) -> tuple[tuple[str, str], ...]:
    seen: set[str] = set()
    for name, value in headers.items():
        if not _HEADER.fullmatch(name):
            rules.add((*way, name), f"{shown(name)} is no header's name", "letters, digits and -")
        elif name.lower() in _OWN_HEADERS:
            rules.add((*way, name), f"{name} is made for each answer anew: it cannot be the same in all", "no such key")
        elif name.lower() in seen:
            rules.add((*way, name), f"{name} is there twice, upper and lower case being the same", "one of the two")
        elif not value.isprintable():
            rules.add((*way, name), "a header's value is one line of text")
        seen.add(name.lower())
    return tuple(headers.items())


def _snippet(rules: Rules, text: str, *way: str) -> str:
    """nginx itself judges it; only a brace that closes what it did not open is told here, for it breaks the site."""
    depth = 0
    for letter in re.sub(r"#.*|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'", "", text):
        depth += (letter == "{") - (letter == "}")
        if depth < 0:
            break
    if depth:
        rules.add(way, "its braces do not match", "whole directives, each with ; or a block of its own")
    return text.strip("\n")


def files(rules: Rules) -> tuple[ConfigFile, ...]:
    """[apps.NAME.files]."""
    found: list[ConfigFile] = []
    for name, value in rules.table.files.items():
        table = models.FileTable(value) if isinstance(value, str) else value
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name):
            rules.add(("files", name), f"{shown(name)} is no file's name", "letters, digits, . _ and -")
        if table.pythonpath and not re.fullmatch(r"[A-Za-z_]\w*\.py", name, re.ASCII):
            rules.add(("files", name, "pythonpath"), f"{shown(name)} is no module", "a name such as local_settings.py")
        if outside(table.template):
            rules.add(("files", name), f"{shown(table.template)} is not inside the folder templates/")
        link = _link(rules, name, table.link, found) if table.link else ""
        found.append(ConfigFile(name, table.template, table.pythonpath, link))
    return tuple(found)


def _link(rules: Rules, name: str, text: str, before: Sequence[ConfigFile]) -> str:
    """Where in the source a configuration file is to be: a place that nothing else of the app's table has."""
    way, allowed = ("files", name, "link"), "a path inside the source"
    place = normpath(text)
    if outside(text) or place == ".":
        rules.add(way, f"{shown(text)} is not inside the source", allowed)
        return ""
    if text.endswith("/"):
        rules.add(way, f"{shown(text)} is a folder", "a file's path, without / at its end", f'"{place}/{name}"')
    for path in rules.table.persist:
        kept = normpath(path)
        if place == kept:
            rules.add(way, f"{shown(place)} persists: the app writes there itself", "another place")
        elif _below(place, kept):
            rules.add(way, f"{shown(place)} is within {shown(f'{kept}/')}, which persists", "another place")
        elif _below(kept, place):
            rules.add(way, f"{shown(kept)} in it persists: it is a folder", allowed)
    for each in before:
        if each.link and (place == each.link or _below(place, each.link) or _below(each.link, place)):
            rules.add(way, f"{shown(each.link)} is the place of {shown(each.name)} already", "a place of its own")
    site = rules.table.nginx
    for url, location in site.locations.items() if isinstance(site, models.NginxTable) else ():
        if any(_below(place, normpath(folder)) for folder in listed(location.folder)):
            rules.add(way, f"nginx serves that folder at {url}: anybody could read the file", "another place")
    return place


def _below(path: str, folder: str) -> bool:
    return path.startswith(f"{folder}/")
