"""Sites that somebody else has set up in the host's nginx: two of one name cannot both be served."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import ClassVar

from deploykit.agent import paths
from deploykit.agent.dataclass import dataclass
from deploykit.agent.resource import Failed, Resource, State

#: Where Debian's nginx.conf looks for sites: all files of the one, *.conf of the other.
ENABLED = "/etc/nginx/sites-enabled"
FURTHER = "/etc/nginx/conf.d"

_LARGEST = 1 << 20  # bytes of a file that is looked at
_TOKEN = re.compile(
    r"""\#[^\n]* | "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' | [{};] | [^\s{};"']+ """, re.VERBOSE | re.DOTALL
)


@dataclass(frozen=True, kw_only=True)
class Names(Resource):
    """Our sites' names, which no other site may have. nginx would only warn, and serve whichever it reads first.

    `ours` are the files that we write there. Looking at it raises Failed when a name is taken.
    """

    removable: ClassVar[bool] = False  # there is nothing to remove

    domains: tuple[str, ...]
    ours: tuple[str, ...]

    @property
    def key(self) -> str:
        return "names of sites"

    def wanted(self) -> State:
        return {"taken": ()}

    def observe(self) -> State | None:
        wanted = set(self.domains)
        for path in _files():
            if path in self.ours or _owned(path):
                continue
            taken = sorted(wanted & set(served(_read(path))))
            if taken:
                raise Failed(
                    f"the host has a site for {', '.join(taken)} already, in {path}, which is not deploykit's",
                    "nginx would serve only one of the two",
                    f"take the name out of it, or take the file away (rm {path}): nginx goes on with what it has read "
                    "until deploykit reloads it. Then deploy again",
                )
        return {"taken": ()}

    def change(self, observed: State | None) -> None:
        raise Failed(f"{self.key} cannot be changed")


def _files() -> Iterator[str]:
    for folder, ending in ((ENABLED, ""), (FURTHER, ".conf")):
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        yield from (f"{folder}/{name}" for name in names if name.endswith(ending))


def _owned(path: str) -> bool:
    """Whether deploykit made that file: the site of an app that left is still there when this is asked."""
    try:
        return f'"{path}"' in paths.MANIFEST.read_text()
    except OSError:
        return False


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_LARGEST)
    except OSError:
        return ""


def served(text: str) -> Iterator[str]:
    """The names of the sites on ports 80 and 443 in a file of nginx's."""
    blocks: list[str] = []
    words: list[str] = []
    ports: list[str] = []
    names: list[str] = []
    for token in _TOKEN.findall(text):
        if token.startswith("#"):
            continue
        if token == "{":
            blocks.append(words[0] if words else "")
            if blocks[-1] == "server":
                ports, names = [], []
            words = []
        elif token == "}":
            if blocks and blocks.pop() == "server" and (not ports or {"80", "443"} & set(ports)):
                yield from names
            words = []
        elif token == ";":
            if blocks[-1:] == ["server"] and words[:1] == ["listen"]:
                ports += [_port(word) for word in words[1:2]]
            elif blocks[-1:] == ["server"] and words[:1] == ["server_name"]:
                for name in (word.strip("\"'").lower() for word in words[1:]):
                    names += [name[1:], f"*{name}"] if name.startswith(".") else [name]
            words = []
        else:
            words.append(token)


def _port(listen: str) -> str:
    if listen.startswith("unix:"):
        return listen
    found = re.search(r"(?:^|:)(\d+)$", re.sub(r"^\[[^\]]*\]", "", listen) or "80")
    return found[1] if found else "80"
