"""Programs that the agent runs, and what they print."""

from __future__ import annotations

import sys
import time

from deploykit.agent.process import run


def test_lines_come_as_they_are_printed() -> None:
    seen: list[tuple[str, float]] = []
    began = time.monotonic()
    script = "printf 'a\\nb'; sleep 0.5; printf 'c\\n\\nd\\r\\n\\303\\250 \\377\\nend'; echo; exit 3"
    done = run(["sh", "-c", script], check=False, output=lambda line: seen.append((line, time.monotonic() - began)))
    assert [line for line, _ in seen] == ["a", "bc", "", "d\r", "è \N{REPLACEMENT CHARACTER}", "end"]
    assert seen[0][1] < 0.4 < seen[1][1]
    assert (done.returncode, done.stdout) == (3, "\n".join(line for line, _ in seen))


def test_much_output_is_whole() -> None:
    lines: list[str] = []
    run([sys.executable, "-c", "for n in range(50000): print('x' * 40, n)"], output=lines.append)
    assert len(lines) == 50_000 and lines[-1].endswith(" 49999")


def test_what_it_leaves_behind_is_not_waited_for() -> None:
    """A build that starts a server for the next build, whose output is still ours."""
    began = time.monotonic()
    script = "sleep 6 & echo left $!; printf 'no newline'"
    lines: list[str] = []
    done = run(["sh", "-c", script], output=lines.append)
    assert time.monotonic() - began < 4
    first, last = done.stdout.split("\n")
    assert first.startswith("left ") and last == "no newline"
    assert lines == [first, last]
