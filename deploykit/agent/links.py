"""Configuration files at a fixed place of a release: links in its code.

A release may run in both slots at once (a new secret, a restart), and each slot has files of its own. So a link in the
code leads to `files` beside the code, which is no part of what is sealed: a link itself, to the folder of the slot in
which the release came up last (`slots.lead`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from deploykit.agent.resource import Failed

#: (path in the code, name of the file) pairs.
Links = Sequence[tuple[str, str]]


def target(path: str, name: str) -> str:
    """Where the link at `path` of the code leads: relative, so that a release that is moved aside keeps its own."""
    return "../" * (path.count("/") + 1) + f"files/{name}"


def room(code: Path, path: str, name: str, app: str) -> None:
    """Takes away what the source has where the link is to be. Raises Failed for what is none of a link's business."""
    place = code / path
    todo = f'correct `link` of [apps.{app}.files] "{name}"; the live release is untouched'
    for above in [each for each in place.parents if each.is_relative_to(code)][::-1]:
        if above != code and above.is_symlink():
            raise Failed(f"{path} is below a link of the source, {above.relative_to(code)}", todo=todo)
        if above.exists() and not above.is_dir():
            raise Failed(f"{path} cannot be there: {above.relative_to(code)} is a file in the source", todo=todo)
    if place.is_dir() and not place.is_symlink():
        raise Failed(f"{path} is a folder in the source", todo=todo)
    place.unlink(missing_ok=True)


def seal(code: Path, links: Links, app: str) -> list[list[str]]:
    """[path, target] of each link, when the build has left it alone. Raises Failed.

    What was compiled of it goes: in the release a secret would outlast the file it is from.
    """
    found = []
    for path, name in links:
        place = code / path
        straight = os.path.realpath(place.parent) == os.path.join(os.path.realpath(code), os.path.dirname(path)).rstrip(
            "/"
        )
        if not (straight and place.is_symlink() and os.readlink(place) == target(path, name)):
            raise Failed(
                f"the build has put something else at {path}",
                todo=f'correct the hooks, or `link` of [apps.{app}.files] "{name}"; the live release is untouched',
            )
        for compiled in (place.parent / "__pycache__").glob(f"{place.stem}.*.pyc"):
            compiled.unlink()
        found.append([path, target(path, name)])
    return found
