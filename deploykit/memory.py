"""What was read out of a source is remembered by the source's digest: reading it again would say the same."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import time

from deploykit import cache
from deploykit import detect as detection
from deploykit.config import interpreters, requirements, syntax

_KEPT = 30 * 86_400  # seconds


def detect(tree: detection.Tree, root: str | None = None, settings: str | None = None, name: str = "") -> (
    detection.Detected
):  # fmt: skip
    """`detect.detect`, whose answer for an equal tree is kept in the user's cache. Raises what that raises."""
    place = cache.FOLDER / "detected" / f"{_name(tree.digest, root, settings)}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):  # a damaged one is made anew
        return _read(json.loads(place.read_text()))
    found = detection.detect(tree, root, settings, name)
    with contextlib.suppress(OSError):  # a full or read-only home only makes it slower
        for old in place.parent.glob("*.json"):
            if time.time() - old.stat().st_mtime > _KEPT:
                old.unlink()
        cache.keep(place, json.dumps(dataclasses.asdict(found)))
    return found


def _name(*parts: str | None) -> str:
    """Of what was asked, and of the code that answers: another version of it may see more."""
    code = [os.stat(str(module.__file__)).st_mtime_ns for module in (detection, interpreters, requirements, syntax)]
    return hashlib.sha256(json.dumps([parts, code]).encode()).hexdigest()[:32]


def _read(data: dict[str, object]) -> detection.Detected:
    return detection.Detected(**{
        name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
    })  # type: ignore[arg-type]  # fmt: skip
