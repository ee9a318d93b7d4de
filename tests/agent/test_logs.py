"""Logs as files: their last lines, those since a time, and what follows while files are put aside."""

from __future__ import annotations

import os
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest

from deploykit.agent import logs

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=timezone.utc).timestamp()


def test_the_last_lines_over_files_that_were_put_aside(tmp_path: Path) -> None:
    log = tmp_path / "blog-a.log"
    (tmp_path / "blog-a.log.2").write_text("one\ntwo\n")
    (tmp_path / "blog-a.log.1").write_text("three\nfour\n")
    log.write_text("five\nsix")
    files = logs._Source("", (log,)).files(0)
    assert [each.name for each in files] == ["blog-a.log.2", "blog-a.log.1", "blog-a.log"]
    assert logs._last(files, 3, 0) == ["four", "five", "six"]
    assert logs._last(files, 100, 0) == ["one", "two", "three", "four", "five", "six"]
    assert logs._last(files, 0, 0) == []
    log.write_text("".join(f"{number} {'x' * 100}\n" for number in range(5000)))
    assert [line.split()[0] for line in logs._last([log], 3000, 0)] == [str(number) for number in range(2000, 5000)]


@pytest.mark.parametrize(
    "line",
    [
        "[2026-01-31 12:00:00 +0000] [7] [INFO] Starting gunicorn 23.0.0",
        "[2026-01-31 13:00:00 +0100] [7] [INFO] x",
        "2026-01-31T12:00:00Z INFO x",
        "2026-01-31T12:00:00.123+00:00 x",
        '203.0.113.7 - - [31/Jan/2026:12:00:00 +0000] "GET / HTTP/1.1" 200 1',
    ],
)
def test_when_a_line_was_written(line: str) -> None:
    assert logs.moment(line) == NOON


@pytest.mark.parametrize(
    ("line", "layout"),
    [
        ("[2026-01-31 12:00:00,123: INFO/MainProcess] Task x", "%Y-%m-%d %H:%M:%S"),
        ('[31/Jan/2026 12:00:00] "GET / HTTP/1.1" 200 1', "%Y-%m-%d %H:%M:%S"),
        ("2026/01/31 12:00:00 [error] 1#1: x", "%Y-%m-%d %H:%M:%S"),
    ],
)
def test_without_a_zone_it_is_the_host_s(line: str, layout: str) -> None:
    assert logs.moment(line) == datetime.strptime("2026-01-31 12:00:00", layout).timestamp()


@pytest.mark.parametrize(
    "line", ["", "Traceback (most recent call last):", "[99/Foo/2026:12:00:00 +0000]", "9999-99-99 99:99:99"]
)
def test_a_line_without_a_time_has_none(line: str) -> None:
    assert logs.moment(line) is None


def test_since_a_time(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text(
        "[2026-01-31 11:59:59 +0000] before\n  its traceback\n[2026-01-31 12:00:00 +0000] then\n  its traceback\n"
    )
    assert logs._last([log], 1, NOON) == ["[2026-01-31 12:00:00 +0000] then", "  its traceback"]
    os.utime(log, (NOON - 5, NOON - 5))
    assert logs._last([log], 1, NOON) == []


def test_following_over_rotation_truncation_and_a_file_that_comes_to_be(tmp_path: Path) -> None:
    log, other = tmp_path / "a.log", tmp_path / "b.log"
    log.write_text("old\n")
    one, two = logs._Followed("", log), logs._Followed("", other)
    assert list(one.fresh()) == [] and list(two.fresh()) == []
    with log.open("a") as file:
        file.write("new\nhal")
    assert list(one.fresh()) == ["new"]
    with log.open("a") as file:
        file.write("f\nlast of the old file\n")
    log.rename(tmp_path / "a.log.1")
    log.write_text("first of the new file\n")
    assert list(one.fresh()) == ["half", "last of the old file", "first of the new file"]
    log.write_text("")
    assert list(one.fresh()) == []
    time.sleep(0.01)
    log.write_text("emptied\n")
    assert list(one.fresh()) == ["emptied"]
    other.write_text("here\n")
    assert list(two.fresh()) == ["here"] and list(two.fresh()) == []
