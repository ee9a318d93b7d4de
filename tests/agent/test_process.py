"""Programs that the agent runs, and what they print."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deploykit.agent import process
from deploykit.agent.process import run
from deploykit.agent.resource import Failed


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


def test_one_that_does_not_end_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    script = f"trap '' TERM; sh -c 'trap \"\" TERM; echo $$ >{tmp_path}/inner; while :; do sleep 1; done' & wait; wait"
    with pytest.raises(Failed, match=r"sh did not end within 0\.5 s"):
        run(["sh", "-c", script], timeout=0.5)
    inner = int((tmp_path / "inner").read_text())
    until(lambda: not running(inner))


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("output", [None, lambda line: None], ids=["collected", "followed"])
def test_a_daemon_that_keeps_the_output_open_is_not_waited_for(
    tmp_path: Path, output: Callable[[str], None] | None
) -> None:
    began = time.monotonic()
    done = run(["sh", "-c", f"setsid sh -c 'echo $$ >{tmp_path}/daemon; sleep 20' & echo said"], output=output)
    assert done.stdout.strip() == "said" and time.monotonic() - began < 10
    until((tmp_path / "daemon").exists)
    os.kill(int((tmp_path / "daemon").read_text() or 0), 9)


def test_much_input_and_much_output_at_once() -> None:
    data = b"x" * 3_000_000
    assert len(run(["cat"], stdin=data).stdout) == len(data)
    assert run(["true"], stdin=data).returncode == 0, "a program that does not read all of it"


def test_output_into_a_file(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as file:
        done = run(["sh", "-c", "echo out; echo words >&2"], into=file.fileno())
    assert (tmp_path / "out").read_text() == "out\n" and done.stdout == "" and done.stderr == "words\n"


def test_a_program_that_was_begun_is_the_one_that_is_asked(tmp_path: Path) -> None:
    """It starts ahead, and gets its input when that is known; its like is asked but once."""
    argv = ("sh", "-c", f"echo started >>{tmp_path}/starts; read -r line; echo $$ heard $line")
    process.begin(argv, env={"A": "1"})
    until(lambda: (tmp_path / "starts").exists())
    other = run(argv, stdin="hello\n", env={"A": "2"})
    first, second = (run(argv, stdin=f"{each}\n", env={"A": "1"}) for each in ("early", "late"))
    assert [done.stdout.split()[1:] for done in (other, first, second)] == [
        ["heard", "hello"],
        ["heard", "early"],
        ["heard", "late"],
    ]
    assert (tmp_path / "starts").read_text() == "started\n" * 3, "one of the three was the one that was begun"


def test_one_that_was_begun_too_early_is_run_again(tmp_path: Path) -> None:
    argv = ("sh", "-c", f"test -e {tmp_path}/ready || {{ touch {tmp_path}/looked; exit 3; }}; cat")
    process.begin(argv)
    until((tmp_path / "looked").exists)
    (tmp_path / "ready").touch()
    assert run(argv, stdin="now").stdout == "now"


def test_what_was_begun_and_never_asked_ends(tmp_path: Path) -> None:
    place = tmp_path / "pid"
    argv = ("sh", "-c", f"echo $$ >{place}.new; mv {place}.new {place}; cat")
    process.begin(argv)
    until(place.exists)
    process.abandon()
    pid = int(place.read_text())
    until(lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None)
    assert run(argv, stdin="anew").stdout == "anew"


def test_a_program_that_is_not_there_cannot_be_begun() -> None:
    process.begin(("/nowhere/psql",))
    process.begin(("true",), user="nobody-of-that-name")


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_endless_output_is_ended() -> None:
    with pytest.raises(Failed, match="sh printed more than 64 MiB"):
        run(["sh", "-c", "exec cat /dev/zero"])


def test_of_lines_without_end_the_last_are_kept() -> None:
    longest, count = 0, 0

    def hear(line: str) -> None:
        nonlocal longest, count
        longest, count = max(longest, len(line)), count + len(line)

    done = run(["sh", "-c", "head -c 40000000 /dev/zero; echo; echo the end"], output=hear)
    assert count == 40_000_007 and longest < 2 << 20
    assert len(done.stdout) < 10 << 20 and done.stdout.endswith("the end")


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="gone is not on the host"):
        run(["true"], cwd=str(tmp_path / "gone"))
