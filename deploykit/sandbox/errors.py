"""The one error of this package: what happened, where, and what to do about it."""

from __future__ import annotations


class SandboxError(Exception):
    """A sandbox could not be made, booted, asked or removed.

    The three parts are kept apart so that the edge may lay them out; `str()` joins them.
    """

    def __init__(self, what: str, where: str, todo: str) -> None:
        super().__init__(what, where, todo)
        self.what = what
        self.where = where
        self.todo = todo

    def __str__(self) -> str:
        between = "\n" if "\n" in self.what else ". "  # a program's own lines stay lines
        return f"{self.where}: {self.what}{between}{self.todo}"
