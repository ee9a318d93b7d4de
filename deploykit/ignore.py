"""Which files of a source stay at home: patterns as in gitignore(5), from `exclude` and from .deployignore."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from deploykit.agent.dataclass import dataclass
from deploykit.errors import DeploykitError

#: The file at a source's top. It is no part of a release: a change of it alone makes no new one.
FILE = ".deployignore"


_MOST = 4  # times ** in one pattern: each may be tried with each folder of a path


@dataclass(frozen=True)
class _Pattern:
    matches: re.Pattern[str]
    folders: bool  # it ends with "/": only a folder is meant
    again: bool  # it begins with "!": what an earlier one left out is in again


class Ignore:
    """Decides by the last pattern that matches; below a folder that is left out nothing comes in again."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = [found for each in patterns if (found := _pattern(each)) is not None]
        self._patterns.reverse()
        self._folders: dict[str, bool] = {"": False}

    def __call__(self, path: str) -> bool:
        """Whether the file at `path` (from the source's top, "/" between folders) is left out."""
        if not self._patterns:
            return False
        folder = path.rpartition("/")[0]
        return self._folder(folder) or self._decides(path, folder=False)

    def _folder(self, folder: str) -> bool:
        found = self._folders.get(folder)
        if found is None:
            found = self._folder(folder.rpartition("/")[0]) or self._decides(folder, folder=True)
            self._folders[folder] = found
        return found

    def _decides(self, path: str, *, folder: bool) -> bool:
        for each in self._patterns:
            if (folder or not each.folders) and each.matches.fullmatch(path):
                return not each.again
        return False


def lines(text: str) -> Sequence[str]:
    """The patterns of a file: comments and blank lines are none."""
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _pattern(text: str) -> _Pattern | None:
    text = re.sub(r"(?<!\\)\s+$", "", text)
    again = text.startswith("!")
    text = text.removeprefix("!")
    folders = text.endswith("/")
    text = text.rstrip("/")
    if not text:
        return None
    # With a slash before its end it is about the path from the top, else about any file or folder of that name.
    anchored = "/" in text
    text = text.removeprefix("/")
    if text.count("**") > _MOST:
        raise DeploykitError(f"the pattern {text[:80]!r} has ** more than {_MOST} times", "exclude or .deployignore")
    expression = _expression(text)
    try:
        matches = re.compile(expression if anchored else f"(?:.*/)?{expression}", re.DOTALL)
    except re.error:  # "[z-a]": it matches nothing, as for git
        return None
    return _Pattern(matches, folders, again)


def _expression(text: str) -> str:
    """As a regular expression.

    Of several * in one name each but the last takes as little as it can, once and for all (an atomic group, which
    Python writes as a lookahead and a reference to it): else `*a*a*a*b` would try all combinations.
    """
    found, at, stars = "", 0, 0
    while at < len(text):
        begins = at == 0 or text[at - 1] == "/"
        if begins and text.startswith("**/", at):
            found, at = found + "(?:.*/)?", at + 3
        elif begins and text.startswith("**", at) and at + 2 == len(text):
            found, at = found + ".+", at + 2
        elif text[at] == "*":
            at = len(text) - len(text[at:].lstrip("*"))  # in a name, ** is *
            piece, at = _until_star(text, at)
            if text.startswith("*", at):
                found, stars = f"{found}(?=(?P<s{stars}>[^/]*?{piece}))(?P=s{stars})", stars + 1
            else:
                found += f"[^/]*{piece}"
        else:
            piece, at = _one(text, at)
            found += piece
    return found


def _until_star(text: str, at: int) -> tuple[str, int]:
    """What stands in a name up to the next * or the name's end, and where that is."""
    found = ""
    while at < len(text) and text[at] not in "*/":
        piece, at = _one(text, at)
        found += piece
    return found, at


def _one(text: str, at: int) -> tuple[str, int]:
    """The expression of one character of a name, and where the next one is."""
    if text[at] == "?":
        return "[^/]", at + 1
    if text[at] == "\\" and at + 1 < len(text):
        return re.escape(text[at + 1]), at + 2
    if text[at] == "[" and (some := re.compile(r"\[([!^]?)(\]?[^\]]*)\]").match(text, at)):
        inner = some[2].replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace("^", "\\^")
        return f"(?!/)[{'^' if some[1] else ''}{inner}]", some.end()
    return re.escape(text[at]), at + 1
