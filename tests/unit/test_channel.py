"""A command on a host that falls silent: who is asked, and when it is given up. paramiko's channel is a fake here."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from deploykit import channel
from deploykit.channel import Channel, Silent, lines


class Fake:
    """paramiko's Channel and Transport in one. `answers`: whether requests to the server are answered."""

    def __init__(self, *pieces: bytes | None, answers: bool = True, takes: int = 1 << 30) -> None:
        self.pieces, self.answers, self.takes = list(pieces), answers, takes
        self.asked: list[str] = []
        self.sent = b""
        self.status_event = threading.Event()
        self.exit_status = 3
        self.closed = threading.Event()

    def settimeout(self, seconds: float) -> None:
        self.seconds = seconds

    def get_transport(self) -> Fake:
        return self

    def global_request(self, kind: str, wait: bool) -> None:
        self.asked.append(kind)
        if not self.answers:
            self.closed.wait()

    def recv(self, size: int) -> bytes:
        piece = self.pieces.pop(0) if self.pieces else b""
        if piece is None:
            time.sleep(self.seconds)
            raise TimeoutError
        return piece

    def recv_stderr(self, size: int) -> bytes:
        return b""

    def send(self, data: bytes) -> int:
        room = min(len(data), self.takes - len(self.sent), 1000)
        if room <= 0:
            time.sleep(self.seconds)
            raise TimeoutError
        self.sent += data[:room]
        return room

    def close(self) -> None:
        self.closed.set()


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, seconds in (("_STEP", 0.01), ("ASK", 0.05), ("SILENCE", 0.4), ("_ENDING", 0.2)):
        monkeypatch.setattr(channel, name, seconds)
    yield


def test_a_host_that_is_busy_is_asked_and_waited_for() -> None:
    fake = Fake(*[None] * 100, b"at last\n")
    assert Channel(fake).read() == b"at last\n"
    assert len(fake.asked) > 2 and set(fake.asked) == {"keepalive@openssh.com"}


def test_a_host_that_answers_no_more_is_given_up() -> None:
    fake = Fake(b"a\n", *[None] * 1000, answers=False)
    command = Channel(fake)
    assert command.read() == b"a\n" and fake.asked == []
    with pytest.raises(Silent, match="the host has not answered for"):
        command.read()
    assert len(fake.asked) == 1
    fake.close()


def test_silence_counts_from_when_it_is_listened_for() -> None:
    """Before that, a large source was sent, say."""
    fake = Fake(None, None, b"a\n", answers=False)
    command = Channel(fake)
    time.sleep(channel.SILENCE + 0.1)
    assert command.read() == b"a\n" and fake.asked == []


def test_a_host_that_takes_no_more_is_given_up() -> None:
    fake = Fake(takes=5000)
    with pytest.raises(Silent, match="the host has taken nothing for"):
        Channel(fake).write(b"x" * 6000)
    assert len(fake.sent) == 5000


def test_all_is_written_piece_by_piece() -> None:
    fake = Fake()
    data = bytes(range(256)) * 1000
    Channel(fake).write(data)
    assert fake.sent == data


def test_the_first_word_has_a_deadline() -> None:
    with pytest.raises(TimeoutError):
        Channel(Fake(*[None] * 1000)).read(time.monotonic() + 0.1)


def test_a_command_that_never_says_how_it_ended() -> None:
    assert Channel(Fake()).finish() == (-1, "")
    fake = Fake()
    fake.status_event.set()
    assert Channel(fake).finish() == (3, "")


def test_lines() -> None:
    def said(*pieces: bytes, longest: int = 100) -> list[bytes]:
        return list(lines(Channel(Fake(*pieces)), longest))

    assert said(b"a", b"b\nc\n\nd", b"e") == [b"ab\n", b"c\n", b"\n", b"de"]
    assert said() == [] and said(b"\n") == [b"\n"]
    assert said(b"x" * 90 + b"\n", b"y" * 90, b"\n") == [b"x" * 90 + b"\n", b"y" * 90 + b"\n"]
    with pytest.raises(OverflowError, match="expected lines of at most 100 bytes"):
        said(b"x" * 60, b"y" * 60)
