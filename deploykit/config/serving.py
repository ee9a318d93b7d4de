"""How an app is served: what nginx does beside the app itself, and the configuration files the app reads."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from deploykit.agent.values import ConfigFile, Location, Site
from deploykit.config import models
from deploykit.config.check import nearest, shown
from deploykit.config.processes import URL_PATH, Rules, listed, outside

_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
_USER = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_PROXY = re.compile(r"[0-9.]{7,15}(/\d{1,2})?|[0-9A-Fa-f:]{2,39}(/\d{1,3})?|unix:")


def site(rules: Rules) -> Site:
    """[apps.NAME.nginx]; its users' passwords may still have to be fetched, and come later."""
    table = rules.table.nginx
    if not isinstance(table, models.NginxTable):
        return Site()
    locations = tuple(_location(rules, url, each) for url, each in table.locations.items())
    for path, target in table.redirects.items():
        if not URL_PATH.fullmatch(path):
            rules.add(("nginx", "redirects", path), f"{shown(path)} is no path", 'a path such as "/old/"')
        elif not re.fullmatch(r"(/|https?://)[\x21-\x7e]*", target) or set(target) & set("\"'\\{};$"):
            rules.add(("nginx", "redirects", path), f"{shown(target)} leads nowhere", "a path, or a URL")
    for user in table.basic_auth:
        if not _USER.fullmatch(user):
            rules.add(("nginx", "basic_auth", user), f"{shown(user)} is no user's name", "letters, digits, . _ @ and -")
    for index, proxy in enumerate(table.proxies):
        if not _PROXY.fullmatch(proxy):
            rules.add(("nginx", "proxies", index), f"{shown(proxy)} is no address", "such as 10.0.0.0/8")
    return Site(
        locations,
        _headers(rules, table.headers, "nginx", "headers"),
        tuple(table.redirects.items()),
        (),
        table.proxies,
        _snippet(rules, table.snippet, "nginx", "snippet"),
    )


def _location(rules: Rules, url: str, table: models.LocationTable) -> Location:
    way = ("nginx", "locations", url)
    if not URL_PATH.fullmatch(url):
        rules.add(way, f"{shown(url)} is no path", 'a path such as "/docs/"')
    folders = listed(table.folder)
    for text in folders:
        if outside(text):
            rules.add((*way, "folder"), f"{shown(text)} is not inside the source")
    if folders and not url.endswith("/"):
        rules.add(way, "a path whose files are served ends with /", f'"{url}/"')
    if folders and table.process:
        rules.add((*way, "process"), "files are served, or a process answers: not both")
    if table.process and table.process not in rules.table.processes:
        meant = nearest(table.process, rules.table.processes)
        what = f"there is no process {shown(table.process)}"
        rules.add((*way, "process"), what, ", ".join(rules.table.processes), meant and f'"{meant}"')
    return Location(
        url,
        tuple(str(PurePosixPath(text)) for text in folders),
        table.process,
        rules.size(table.max_body, *way, "max_body") if table.max_body else 0,
        table.timeout,
        _headers(rules, table.headers, *way, "headers"),
        _snippet(rules, table.snippet, *way, "snippet"),
    )


def _headers(rules: Rules, headers: dict[str, str] | object, *way: str) -> tuple[tuple[str, str], ...]:
    assert isinstance(headers, dict)
    for name, value in headers.items():
        if not _HEADER.fullmatch(name):
            rules.add((*way, name), f"{shown(name)} is no header's name", "letters, digits and -")
        elif not value.isprintable():
            rules.add((*way, name), "a header's value is one line of text")
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
    found = []
    for name, value in rules.table.files.items():
        table = models.FileTable(value) if isinstance(value, str) else value
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name):
            rules.add(("files", name), f"{shown(name)} is no file's name", "letters, digits, . _ and -")
        if table.pythonpath and not re.fullmatch(r"[A-Za-z_]\w*\.py", name, re.ASCII):
            rules.add(("files", name, "pythonpath"), f"{shown(name)} is no module", "a name such as local_settings.py")
        if outside(table.template):
            rules.add(("files", name), f"{shown(table.template)} is not inside the folder templates/")
        found.append(ConfigFile(name, table.template, table.pythonpath))
    return tuple(found)
