"""What deploykit remembers on a host: what is only looked at is read once, and never older than its file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from deploykit.agent import paths


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read."""
    found: list[Path] = []
    read = paths.read_json
    monkeypatch.setattr(paths, "read_json", lambda path, default: found.append(path) or read(path, default))
    return found


def test_what_is_looked_at_again_is_read_once(tmp_path: Path, readings: list[Path]) -> None:
    place = tmp_path / "a.json"
    assert paths.known_json(place, {}) == {}
    paths.write_json(place, {"live": "a"})
    assert [paths.known_json(place, {}) for _ in range(3)] == [{"live": "a"}] * 3
    assert readings == [place]


def test_what_we_write_is_seen_whatever_the_clock_says(tmp_path: Path) -> None:
    place = tmp_path / "a.json"
    for value in ("a", "b", "a", "b"):
        paths.write_json(place, {"live": value})
        os.utime(place, ns=(1, 1))
        assert paths.known_json(place, {}) == {"live": value}


def test_what_others_write_is_seen(tmp_path: Path) -> None:
    place = tmp_path / "a.json"
    paths.write_json(place, {"live": "a"})
    assert paths.known_json(place, {}) == {"live": "a"}
    (tmp_path / "new").write_text(json.dumps({"live": "b"}))
    os.replace(tmp_path / "new", place)
    assert paths.known_json(place, {}) == {"live": "b"}
    place.unlink()
    assert paths.known_json(place, {"live": ""}) == {"live": ""}


def test_what_is_there_already_is_not_written_again(tmp_path: Path) -> None:
    place = tmp_path / "a.json"
    numbers = []
    for value in ({"a": [1]}, {"a": [1]}, {"a": [2]}):
        paths.update_json(place, value)
        numbers.append(place.stat().st_ino)
        assert json.loads(place.read_text()) == value
    assert numbers[0] == numbers[1] != numbers[2], "a write is a new file in its place"
