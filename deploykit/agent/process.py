"""Running programs on the host: argument lists, a known environment, and answers remembered until a change."""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import select
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from deploykit.agent.resource import Failed

P = ParamSpec("P")
R = TypeVar("R")

#: The environment of every program the agent runs: no locale surprises, nothing asks, the system's certificates
#: also for programs that bring their own (pip, uv).
ENVIRONMENT: dict[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "HOME": "/root",
    "DEBIAN_FRONTEND": "noninteractive",
    # needrestart, on every Ubuntu server, hooks into apt. Up to 22.04 it may ask; from 24.04 on it restarts services by
    # itself even if nobody can be asked, PostgreSQL and supervisor with all apps among them, while we are at work:
    # https://discourse.ubuntu.com/t/needrestart-changes-in-ubuntu-24-04-service-restarts/44671
    # Suspended, its hook does nothing and the next apt run is told; the mode is for who calls needrestart itself.
    "NEEDRESTART_SUSPEND": "1",
    "NEEDRESTART_MODE": "l",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INPUT": "1",
    "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
    "PIP_CERT": "/etc/ssl/certs/ca-certificates.crt",
}

_PIPE = 1 << 16  # bytes that a pipe holds: pipe(7)

#: Bytes of what a program prints that are kept: an app's must not take the host's memory by its words.
_MOST = 64 << 20
_LONGEST = 1 << 20  # bytes of one line: more is the next line

#: What programs that we start inherit open, by their user: see `lock.settle`.
_keeping: Callable[[str], tuple[int, ...]] | None = None

_memory: dict[object, object] = {}
_asking: dict[object, threading.RLock] = {}
_generation = 0
_NOTHING = object()


#: What `begin` has started, by how it is called.
_begun: dict[object, subprocess.Popen[bytes]] = {}

#: Told what the long ones among the programs of a change print, so that a person sees it move.
_listener: Callable[[str], None] | None = None


def listen(listener: Callable[[str], None] | None) -> None:
    """From now on `heard` passes its lines to `listener`."""
    global _listener
    _listener = listener


def heard(line: str) -> None:
    """One line of a program that takes long."""
    if _listener is not None:
        _listener(line)


def remembered(function: Callable[P, R]) -> Callable[P, R]:
    """Keeps a question's answer until `forget()`: many resources share one `psql`, one `systemctl show`.

    A plain dict: arguments must be hashable.
    """

    @functools.wraps(function)
    def ask(*args: P.args, **kwargs: P.kwargs) -> R:
        question = (function, args, tuple(sorted(kwargs.items())))
        found = _memory.get(question, _NOTHING)
        if found is not _NOTHING:
            return found  # type: ignore[return-value]
        with _asking.setdefault(question, threading.RLock()):  # who asks the same meanwhile waits for the answer
            found = _memory.get(question, _NOTHING)
            if found is not _NOTHING:
                return found  # type: ignore[return-value]
            generation = _generation
            answer = function(*args, **kwargs)
            if generation == _generation:  # else another thread changed something meanwhile: it may be stale
                _memory[question] = answer
            return answer

    return ask


def forget() -> None:
    """What was observed may be otherwise now. The engine says so after every change."""
    global _generation
    _generation += 1
    _memory.clear()


def keep(handles: Callable[[str], tuple[int, ...]] | None) -> None:
    """Programs have these open from now on, by the user who runs them, and so have their own: see `lock.settle`."""
    global _keeping
    _keeping = handles


def kept(user: str) -> tuple[int, ...]:
    """What programs of `user` ("" is root) inherit. Raises Failed when an earlier run's still go on."""
    return _keeping(user) if _keeping is not None else ()


def as_user(user: str, env: Mapping[str, str] | None, *, whole: bool = False) -> tuple[dict[str, str], dict[str, Any]]:
    """The environment of a program that runs as `user` ("" is root), and what makes `subprocess` run it so.

    `whole`: `env` is the whole of an app's environment, nothing of ours is added to it, and files that the program
    makes are as those of the app's processes.
    """
    environment = {**({} if whole else ENVIRONMENT), **(env or {})}
    if not user or user == "root":
        return environment, {}
    account = pwd.getpwnam(user)
    groups = os.getgrouplist(user, account.pw_gid)
    identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups}
    account_says = {"HOME": account.pw_dir, "USER": user, "LOGNAME": user}
    if whole:
        return {**account_says, **environment}, {**identity, "umask": 0o027}
    return {**environment, **account_says, "HOME": (env or {}).get("HOME", account.pw_dir)}, identity


def begin(argv: Sequence[str], *, user: str = "", env: Mapping[str, str] | None = None) -> None:
    """Starts a program ahead that waits for its input: the next `run` of the same gives it that.

    For one that takes longer to start than to answer. Whatever goes wrong, `run` meets it again, and says so.
    """
    with contextlib.suppress(OSError, KeyError):
        environment, identity = as_user(user, env)
        pipe = subprocess.PIPE
        _begun[_call(argv, user, env)] = subprocess.Popen(
            list(argv), stdin=pipe, stdout=pipe, stderr=pipe, env=environment, cwd="/", **identity
        )


def abandon() -> None:
    """Ends what was begun and is not asked for: it finds its input at an end."""
    while _begun:
        _, child = _begun.popitem()
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()


def _call(argv: Sequence[str], user: str, env: Mapping[str, str] | None) -> object:
    return tuple(argv), user, tuple(sorted((env or {}).items()))


def run(
    argv: Sequence[str],
    *,
    user: str = "",
    stdin: str | bytes = b"",
    env: Mapping[str, str] | None = None,
    whole: bool = False,
    cwd: str | None = None,
    check: bool = True,
    timeout: float | None = None,
    output: Callable[[str], None] | None = None,
    into: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs one program to its end, as `user` when given (setuid in the child: no sudo, no shell).

    `env` is added to ours, or with `whole` all there is. `output` is called with each line as it comes (standard error
    included); `into` is a file descriptor that gets its standard output instead. `timeout` in seconds: then it is
    ended, with all that it has started. Raises Failed with the last lines when `check`, TimedOut.
    """
    environment, identity = as_user(user, env, whole=whole)
    data = stdin.encode() if isinstance(stdin, str) else stdin
    try:
        if _begun and (early := _begun.pop(_call(argv, user, env), None)):
            said, complained = early.communicate(data)
            if early.returncode == 0:  # else: what hindered it may have passed
                return subprocess.CompletedProcess(list(argv), 0, _text(said), _text(complained))
        with subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE if data else subprocess.DEVNULL,
            stdout=subprocess.PIPE if into is None else into,
            stderr=subprocess.PIPE if output is None else subprocess.STDOUT,
            env=environment,
            cwd=cwd or "/",
            pass_fds=kept(user),
            start_new_session=True,  # so that it can be ended with all that it has started
            **identity,
        ) as child:
            try:
                result = _collected(child, data, timeout, output)
            except BaseException:
                end_group(child)
                raise
    except FileNotFoundError as error:
        raise Failed(f"{error.filename or argv[0]} is not on the host", str(error)) from None
    if check and result.returncode != 0:
        words = tail(result.stderr or result.stdout)
        raise Failed(f"`{' '.join(argv)}` ended with {result.returncode}", words)
    return result


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _collected(
    child: subprocess.Popen[bytes], data: bytes, timeout: float | None, output: Callable[[str], None] | None
) -> subprocess.CompletedProcess[str]:
    """What a program prints until it ends, while it is given `data`. Raises TimedOut."""
    assert not isinstance(child.args, (str, bytes, os.PathLike))
    argv = [str(word) for word in child.args]
    said = {pipe.fileno(): bytearray() for pipe in (child.stdout, child.stderr) if pipe is not None}
    rest, lines = b"", LastLines()

    def hear(piece: bytes) -> None:
        nonlocal rest
        if output is not None:
            *whole, rest = (rest + piece).split(b"\n")
            if len(rest) > _LONGEST:
                whole, rest = [*whole, rest], b""
            for raw in whole:
                line = _text(raw)
                lines.append(line)
                output(line)

    for handle, piece in pieces(child, data, timeout):
        if output is None:
            said[handle] += piece
            if len(said[handle]) > _MOST:
                raise Failed(f"{argv[0]} printed more than {_MOST >> 20} MiB, so it was ended", " ".join(argv)[:1000])
        else:
            hear(piece)
    if rest:
        hear(b"\n")
    child.wait()
    if output is not None:
        return subprocess.CompletedProcess(argv, child.returncode, lines.text(), "")
    both = [_text(bytes(said[pipe.fileno()])) if pipe is not None else "" for pipe in (child.stdout, child.stderr)]
    return subprocess.CompletedProcess(argv, child.returncode, *both)


class LastLines:
    """The last lines of what a program prints: 8 million characters at most."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque()
        self._size = 0

    def append(self, line: str) -> None:
        """One more line."""
        self._lines.append(line)
        self._size += len(line) + 1
        while self._size > _MOST // 8:
            self._size -= len(self._lines.popleft()) + 1

    def text(self) -> str:
        """All of them."""
        return "\n".join(self._lines)


class TimedOut(Failed):
    """A program that did not end in its time; it was ended, with all of its process group."""

    def __init__(self, argv: Sequence[str], seconds: float) -> None:
        super().__init__(f"{argv[0]} did not end within {seconds:g} s", " ".join(argv))
        self.seconds = seconds


def pieces(
    child: subprocess.Popen[bytes], data: bytes = b"", timeout: float | None = None
) -> Iterator[tuple[int, bytes]]:
    """(file descriptor, bytes) of what a program prints till it ends, while it is given `data`. Raises TimedOut.

    Some leave a server for the next time behind, which keeps the output open: it is not waited for.
    """
    outputs = {pipe.fileno() for pipe in (child.stdout, child.stderr) if pipe is not None}
    poll = select.poll()
    for handle in outputs:
        os.set_blocking(handle, False)
        poll.register(handle, select.POLLIN)
    left = memoryview(data)
    if data and child.stdin is not None:
        os.set_blocking(child.stdin.fileno(), False)
        poll.register(child.stdin, select.POLLOUT)
    deadline = None if timeout is None else time.monotonic() + timeout
    ended = os.pidfd_open(child.pid)
    try:
        poll.register(ended, select.POLLIN)
        while True:
            wait = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            seen = {each for each, _ in poll.poll(wait)}
            if timeout is not None and wait == 0 and ended not in seen:
                end_group(child)
                raise TimedOut([str(word) for word in child.args], timeout)  # type: ignore[union-attr]
            if left and child.stdin is not None and child.stdin.fileno() in seen:
                left = left[_given(child.stdin.fileno(), left) :]
                if not left:
                    poll.unregister(child.stdin)
                    child.stdin.close()
            for handle in outputs if ended in seen else outputs & seen:
                with contextlib.suppress(BlockingIOError):
                    piece = os.read(handle, _PIPE)
                    if piece:
                        yield handle, piece
                    else:
                        poll.unregister(handle)
                        outputs = outputs - {handle}
            if ended in seen:  # and all that it had printed has been read
                return
    finally:
        os.close(ended)


def _given(handle: int, data: memoryview) -> int:
    """How much of `data` a program has taken; all, when it wants no more."""
    try:
        return os.write(handle, data[:_PIPE])
    except BlockingIOError:
        return 0
    except BrokenPipeError:
        return len(data)


def end_group(child: subprocess.Popen[bytes], patience: float = 5.0) -> None:
    """Ends a program that leads a session of its own, and all that it has started in it: asked first, then killed."""
    for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(seconds)


def titled(title: str) -> frozenset[int]:
    """The pids of the processes with just this title, in the place of an argument list (nginx fills it with zeros)."""
    found = set()
    wanted = title.encode()
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if place.read_bytes().rstrip(b"\0") == wanted:
                found.add(int(place.parent.name))
    return frozenset(found)


def tail(text: str, lines: int = 25) -> str:
    """The last lines of a program's output: where it says what was wrong."""
    return "\n".join(text.rstrip().splitlines()[-lines:])
