"""What nginx does at each URL path of an app's site: its static files and uploads, its own locations, its redirects.

All that is said of one path, wherever it is said, becomes one location: nginx refuses a second.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from urllib.parse import unquote

from deploykit.agent.dataclass import dataclass
from deploykit.agent.resource import Failed
from deploykit.agent.values import App, Location, all_below
from deploykit.model import layout
from deploykit.recipes.build import persists

#: Seconds for which nginx waits for the next word on a connection of a web server's own paths. WebSockets are silent
#: for long, and the servers' own pings (every 20 s with uvicorn and daphne) may be switched off.
_SILENCE = 3600

#: A header of these names adds to one that is there already, instead of contradicting it.
_ADDING = ("link", "vary")

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Header:
    """One header, its value as nginx writes it in double quotes. `always`: with errors, too."""

    name: str
    value: str
    always: bool = True


@dataclass(frozen=True)
class Place:
    """One location. `roots` are folders below the app's home, the first that has the file; else `socket` answers.

    `index`: a folder's index.html is served; `uploads`: what people put there is not to be trusted. `timeout` in
    seconds, `max_body` in MiB, 0: as the site. `ours` are headers of files, `headers` of all answers; `hidden` are
    those of the app's that they replace.
    """

    url: str
    roots: tuple[str, ...] = ()
    index: bool = False
    uploads: bool = False
    socket: str = ""
    upgrade: bool = False
    timeout: int = 0
    max_body: int = 0
    ours: tuple[Header, ...] = ()
    headers: tuple[Header, ...] = ()
    hidden: tuple[str, ...] = ()
    snippet: str = ""

    @property
    def pattern(self) -> str:
        """The URL as a regular expression in double quotes."""
        return escaped(re.escape(self.url))

    @property
    def folders(self) -> tuple[str, ...]:
        """The roots as nginx writes them in double quotes, each with / before it."""
        return tuple(f"/{literal(root)}" for root in self.roots)

    @property
    def indexed(self) -> tuple[str, ...]:
        """Those of them in which a folder with an index.html is sent to its own address, which ends with /."""
        return tuple(f"/{literal(root)}" for root in self.roots if self.index and not root.startswith("previous/"))

    def tried(self, file: str, otherwise: str) -> str:
        """What try_files tries: `file` in each root, then the location `otherwise` if a web server answers at all."""
        return " ".join([*(f'"{folder}/{file}"' for folder in self.folders), otherwise if self.socket else "=404"])


@dataclass(frozen=True)
class Redirect:
    """Where one path leads, `url` and `target` as nginx writes them in double quotes; `below`: all below it, too."""

    url: str
    target: str
    below: bool = False
    pattern: str = ""


def escaped(text: str) -> str:
    """A text between nginx's double quotes, where variables stay what they are."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def literal(text: str) -> str:
    """A text between nginx's double quotes that means itself. nginx has no other way to write a dollar than a variable
    that holds one: templates/nginx/deploykit.conf.j2."""
    return escaped(text).replace("$", "${deploykit_dollar}")


def places(app: App) -> tuple[Place, ...]:
    """The locations of an app, longest path first; that of / is the last. Raises Failed for two that contradict."""
    found: dict[str, Place] = {"/": _answered(app, "/", "")}
    if app.static:
        found[app.static.url] = Place(app.static.url, ("live/static", "previous/static"))
    if app.media:
        static = found.get(app.media.url, Place(app.media.url))
        found[app.media.url] = replace(static, roots=(*static.roots, "media"), uploads=True)
    for process in app.processes:
        for path in process.paths:
            if path in found:
                raise _twice(app, path, f"process {process.name}")
            found[path] = _answered(app, path, process.name)
    for location in app.site.locations:
        found[location.url] = _located(app, location, found.get(location.url))
    moved = {redirect.url for redirect in redirects(app) if redirect.below}
    if "/" in moved:
        del found["/"]
    if both := moved & {literal(url) for url in found}:
        raise _twice(app, min(both), "redirect")
    theirs = {location.url: location.headers for location in app.site.locations}
    dressed = (_dressed(app, place, theirs.get(place.url, ())) for place in found.values())
    return tuple(sorted(dressed, key=lambda place: (-len(place.url), place.url)))


def _answered(app: App, url: str, name: str) -> Place:
    """A path that a web server answers: the app's own ("") or one of its processes."""
    if not name:
        # gunicorn must be the one that gives up, for it knows why. What an ASGI server keeps open pings every 20 s.
        asgi = app.web.interface == "asgi"
        return Place(
            url,
            socket=str(layout.socket(app.name, "live")),
            upgrade=asgi,
            timeout=max(app.web.timeout + 5, 60 if asgi else 0),
        )
    web = next((process.web for process in app.processes if process.name == name), None)
    if web is None:
        raise Failed(f"no web server {name} of app {app.name} answers at {url}")
    asgi = web.interface == "asgi"
    socket = str(layout.socket(app.name, "live", name))
    return Place(url, socket=socket, upgrade=asgi, timeout=_SILENCE if asgi else web.timeout + 5)


def _located(app: App, location: Location, place: Place | None) -> Place:
    """A location of the user's, on top of what is at its path already."""
    url = location.url
    if place is None or location.process:
        if place is not None and place.roots:
            raise _twice(app, url, f"process {location.process}")
        place = Place(url) if location.folders else _answered(app, url, location.process)
    if location.folders:
        if place.socket and url != "/":
            raise _twice(app, url, "location with folders")
        now = [f"persist/{each}" if persists(app, each) else f"live/public/{each}" for each in location.folders]
        # What the release before had is looked for after all that is there now.
        before = [f"previous/public/{each}" for each in location.folders if not persists(app, each)]
        mine = [root for root in place.roots if not root.startswith("previous/")]
        older = [root for root in place.roots if root.startswith("previous/")]
        place = replace(
            place,
            roots=(*mine, *now, *older, *before),
            index=not place.roots,
            uploads=place.uploads or any(persists(app, each) for each in location.folders),
        )
    return replace(
        place,
        timeout=location.timeout or place.timeout,
        max_body=location.max_body,
        snippet=location.snippet,
    )


def _twice(app: App, url: str, what: str) -> Failed:
    return Failed(
        f"{url} of app {app.name} is served already: there is no place for a {what}",
        todo="give one of the two another path: static, media, processes and nginx of the app's table",
    )


def _dressed(app: App, place: Place, own: Pairs) -> Place:
    theirs = {name.lower(): (name, value) for name, value in (*app.site.headers, *own)}
    ours = []
    if place.roots:
        ours.append(Header("X-Content-Type-Options", "nosniff"))
        if place.uploads:
            ours.append(Header("Content-Security-Policy", "$deploykit_sandbox", always=False))
        else:
            ours.append(Header("Cache-Control", "$deploykit_cache", always=False))
    # Browsers obey both of two policies: the site's own must not free what somebody uploaded, only its location's may.
    stays = {"content-security-policy"} - {name.lower() for name, _ in own}
    kept = tuple(each for each in ours if each.name.lower() not in theirs or each.name.lower() in stays)
    hidden = tuple(name for low, (name, _) in theirs.items() if low not in _ADDING)
    return replace(place, ours=kept, headers=given(theirs.values()), hidden=hidden)


def given(headers: Iterable[tuple[str, str]]) -> tuple[Header, ...]:
    """Headers of the user's; one without a value is not sent."""
    return tuple(Header(name, literal(value)) for name, value in headers if value)


def redirects(app: App) -> tuple[Redirect, ...]:
    """Where the app's old paths lead. Query strings are kept."""
    return tuple(_redirect(unquote(path), target) for path, target in app.site.redirects)


def _redirect(path: str, target: str) -> Redirect:
    if all_below(path, target):
        return Redirect(literal(path), literal(target), True, escaped(re.escape(path)))
    address, mark, fragment = target.partition("#")
    query = "$deploykit_further_args" if "?" in address else "$is_args$args"
    return Redirect(literal(path), f"{literal(address)}{query}{literal(mark + fragment)}")
