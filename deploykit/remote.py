"""Talking to the agent: one exec on a host that has it, two on one that does not."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator

from deploykit import channel, sudo
from deploykit.bundle import Bundle
from deploykit.channel import Exchange, Silent
from deploykit.errors import DeploykitError
from deploykit.model import events
from deploykit.model.events import Event
from deploykit.source import Tree, content
from deploykit.transport import Transport

FOLDER = "/var/lib/deploykit/agent"
_ABSENT, _NO_PYTHON, _OLD_PYTHON, _TIRED = 97, 96, 95, 94
_ANSWER, _INSTALLED = 300.0, 2400.0  # seconds until the first word, of an agent and of one that must be installed
_BEAT = 15.0  # seconds between two signs of life of ours
_ASKED = 8  # times that an agent may ask for the source of one app
_FRAME = 1 << 18
_LONG = 1 << 14  # bytes from which on a message is compressed: it fits into the first packets of a connection till then

#: Receives the agent on standard input, unpacks it where it belongs, compiles it, becomes it. The rest of standard
#: input is the request: read without a buffer, not one byte too many.
_INSTALL = """
import compileall, hashlib, io, os, shutil, sys, tempfile, time, zipfile
if sys.version_info < (3, 10):
    print("Python %d.%d" % sys.version_info[:2], file=sys.stderr)
    sys.exit(95)
sha, size = sys.argv[1], int(sys.argv[2])
data = b""
while len(data) < size:
    piece = os.read(0, size - len(data))
    if not piece:
        sys.exit("the connection was closed while the agent was sent")
    data += piece
folder = "/var/lib/deploykit/agent"
os.makedirs(folder, 0o755, exist_ok=True)
place = folder + "/" + sha
if not os.path.isdir(place):
    for old in os.listdir(folder):  # not those that may still be at work
        if time.time() - os.path.getmtime(folder + "/" + old) > 86400:
            shutil.rmtree(folder + "/" + old, ignore_errors=True)
    fresh = tempfile.mkdtemp(dir=folder)
    zipfile.ZipFile(io.BytesIO(data)).extractall(fresh)
    compileall.compile_dir(fresh, quiet=2)
    os.chmod(fresh, 0o755)
    os.sync()
    try:
        os.rename(fresh, place)
    except OSError:
        shutil.rmtree(fresh)
os.execv(sys.executable, [sys.executable, "-IS", place])
"""

#: python3 is all that is needed; a minimal image may lack it, or have python3-minimal, which is a part of the library:
#: https://packages.debian.org/bookworm/python3-minimal. On a new machine others may hold apt's locks for some minutes.
_BOOTSTRAP = """\
python3 -IS -c 'import concurrent.futures, json, zipfile' 2>/dev/null || {
    export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
    apt() {
        for try in $(seq 60); do
            said=$(apt-get -qq -o DPkg::Lock::Timeout=5 "$@" 2>&1) && return
            case $said in *'Could not get lock'* | *'Unable to acquire'*) sleep 5 ;; *) break ;; esac
        done
        printf '%s\\n' "$said"
        return 1
    }
    apt update && apt install -y --no-install-recommends python3
} </dev/null >&2 || exit 96
exec python3 -IS -c "$0" "$@"
"""

#: What the keys of root print on the images of clouds, which want another user: `disable_root_opts` of cloud-init,
#: https://docs.cloud-init.io/en/latest/reference/modules.html#ssh
_OTHER_USER = re.compile(r'Please login as the user "([^"]+)"')


def _message(message: Event, text: str = "") -> bytes:
    """As `agent/wire.py` receives it. `text` is JSON, too: an object whose members follow those of `message`."""
    words = json.dumps(message, separators=(",", ":"))
    line = (f"{words[:-1]},{text[1:]}" if text else words).encode() + b"\n"
    if len(line) < _LONG:
        return line
    packed = zlib.compress(line, 1)
    return b'{"zlib":%d}\n' % len(packed) + packed


class Remote:
    """The agent on one host. `password` asks the person for sudo's password, once, when sudo wants one."""

    def __init__(
        self, name: str, transport: Transport, bundle: Bundle, password: Callable[[str], str], trees: dict[str, Tree]
    ) -> None:
        self._name = name
        self._transport = transport
        self._bundle = bundle
        self._ask = password
        self._password: str | None = None
        self._trees = trees
        self._waiting: Exchange | None = None

    def take(self, begun: Exchange | None) -> None:
        """What `command` has started already: the agent that waits there gets the first request."""
        self._waiting = begun

    def command(self) -> str:
        """Starts the agent, if it is there."""
        place = f"{FOLDER}/{self._bundle.sha}"
        return f"test -d {place} || exit {_ABSENT}; exec {self._become()}python3 -IS {place}"

    def events(self, request: Event, text: str = "") -> Iterator[Event]:
        """Sends a request and yields what the agent says. Raises DeploykitError when there is no agent to be had.

        `text`: the rest of the request, as JSON already.
        """
        line = _message(request, text)
        answer = _Answer(self._name, self._trees, endless=bool(request.get("follow")))
        status, error = yield from self._converse(self.command(), line, answer)
        if status == _TIRED:  # it was begun ahead, long ago
            status, error = yield from self._converse(self.command(), line, answer)
        if status == _ABSENT:
            bootstrap = shlex.join(["sh", "-c", _BOOTSTRAP, _INSTALL, self._bundle.sha, str(len(self._bundle.data))])
            answer.patience = _INSTALLED
            status, error = yield from self._converse(
                f"exec {self._become()}{bootstrap}", self._bundle.data + line, answer
            )
        if status is not None:
            yield from self._explain(status, error, request, text)

    def _become(self) -> str:
        return sudo.prefix(self._transport.user, password=self._password is not None)

    def _converse(self, command: str, data: bytes, answer: _Answer) -> Generator[Event, None, tuple[int | None, str]]:
        """The events of one command, then (None, "") after the last of them, or how it ended before that."""
        begun, self._waiting = self._waiting, None
        exchange = begun or self._transport.exec(command)
        noise: deque[str] = deque(maxlen=20)  # a login script that prints, a key that may only run a command of its own
        if self._password is not None and "sudo -k -S" in command:
            data = self._password.encode() + b"\n" + data
        try:
            with _Alive(exchange) as alive:
                alive.write(data)
                for line in answer.lines(exchange):
                    event = answer.event(line)
                    if event is None:
                        noise.append(line[:2000].decode("utf-8", "replace").strip())
                        self._other_user(noise[-1])
                    elif event["event"] == "tree":
                        alive.write(_message({"files": self._trees[event["app"]].listing()}))
                    elif event["event"] == "want":
                        yield event
                        _send(alive, self._trees[event["app"]], event["files"])
                    else:
                        yield event
                        if event["event"] in ("end", "facts"):
                            return None, ""  # all is said: that the process ends, too, would be one more round trip
        except Silent as silent:
            raise DeploykitError(
                str(silent),
                f"host {self._name}",
                "is the network up, and the host? What had begun goes on there; `fab deploy` again shows how it ended, "
                "and finishes what did not",
            ) from None
        except ConnectionError:
            pass  # the exit status and what the host said of it tell more
        exchange.close_write()
        status, error = exchange.finish()
        return status, error if error.strip() else "\n".join(noise)

    def _other_user(self, said: str) -> None:
        if other := _OTHER_USER.search(said):
            raise DeploykitError(
                f"{self._transport.user} may not log in there", f"host {self._name}", f'write user = "{other[1]}"'
            )

    def _explain(self, status: int, error: str, request: Event, text: str) -> Iterator[Event]:
        where = f"host {self._name}"
        said = error.strip()
        user = self._transport.user
        if user != "root" and sudo.wants_password(said) and self._password is None:
            self._password = self._ask(f"sudo password of {user} on {self._name}")
            yield from self.events(request, text)
            return
        if refusal := sudo.refusal(user, status, said, where):
            self._password = None
            raise refusal
        if status == _NO_PYTHON:
            raise DeploykitError(
                "there is no python3 and it could not be installed", where, said or "is it Debian or Ubuntu?"
            )
        if status == _OLD_PYTHON:
            raise DeploykitError(
                f"its python3 is too old ({said})", where, "use Ubuntu 22.04, 24.04, 26.04 or Debian 12, 13"
            )
        if status == -1 or (status and not said):
            raise DeploykitError(
                "the connection was lost",
                where,
                "what had begun goes on there; `fab deploy` again shows how it ended, and finishes what did not",
            )
        how = f"the agent ended with {status}" if status else "the agent ended without an answer"
        raise DeploykitError(how, where, said or "try again")


class _Alive:
    """A conversation in which we are heard of: an agent that hears nothing for a minute gives us up. A context."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._writing = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> _Alive:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()

    def write(self, data: bytes) -> None:
        """Whole messages and frames only: an empty line may follow. Raises ConnectionError."""
        with self._writing:
            self._exchange.write(data)

    def _beat(self) -> None:
        while not self._over.wait(_BEAT):
            with contextlib.suppress(ConnectionError):
                self.write(b"\n")


class _Answer:
    """What a host says to one request: it is not trusted, so each event has a shape, and all of it a measure.

    `endless`: it is asked for what may never come, and never end.
    """

    def __init__(self, host: str, trees: dict[str, Tree], *, endless: bool) -> None:
        self.patience = _ANSWER
        self._host = host
        self._trees = trees
        self._endless = endless
        self._asked: Counter[str] = Counter()
        self._heard = False
        self._length = 0

    def lines(self, exchange: Exchange) -> Iterator[bytes]:
        """Raises DeploykitError, ConnectionError."""
        end = time.monotonic() + self.patience
        try:
            yield from channel.lines(exchange, events.LONGEST, lambda: None if self._heard or self._endless else end)
        except TimeoutError:
            raise DeploykitError(
                f"the agent has not answered for {self.patience:.0f} s",
                f"host {self._host}",
                "look at the host: is it out of memory, does a program there hang?",
            ) from None
        except OverflowError as error:
            raise self._bad(str(error)) from None

    def event(self, line: bytes) -> Event | None:
        """The event that a line is; None for what another program has said. Raises DeploykitError."""
        self._length += len(line)
        if self._length > events.TOTAL and not self._endless:
            raise self._bad(f"expected an answer of at most {events.TOTAL >> 20} MiB")
        try:
            event = events.parse(line)
        except events.Bad as bad:
            raise self._bad(str(bad)) from None
        if event is None:
            return None
        self._heard = True
        if event["event"] in ("tree", "want"):
            self._check(event)
        return event

    def _check(self, event: Event) -> None:
        """It may ask for what it was offered, and not for ever."""
        app = event["app"]
        self._asked[app] += 1
        if app not in self._trees:
            raise self._bad(f"expected it to ask for an app that is deployed but got {app[:60]}")
        if self._asked[app] > _ASKED:
            raise self._bad(f"it asks for the source of {app} again and again")
        if event["event"] == "want":
            offered = {each.sha for each in self._trees[app].entries.values()}
            if len(set(event["files"])) != len(event["files"]) or not offered.issuperset(event["files"]):
                raise self._bad(f"it asks for files that {app} has not")

    def _bad(self, what: str) -> DeploykitError:
        return DeploykitError(
            f"it does not answer as an agent does: {what}",
            f"host {self._host}",
            "remove /var/lib/deploykit/agent on the host and try again; if it happens again, do not trust the host",
        )


def _send(alive: _Alive, tree: Tree, shas: list[str]) -> None:
    """The contents in the order asked for, as one zlib stream in frames."""
    places = {each.sha: (path, each) for path, each in tree.entries.items()}
    deflater = zlib.compressobj(1)
    waiting = bytearray()

    def frame() -> None:
        if waiting:
            alive.write(f"{len(waiting)}\n".encode() + bytes(waiting))
            waiting.clear()

    for sha in shas:
        path, entry = places[sha]
        try:
            data = content(tree.folder / path, entry.mode)
        except OSError as error:
            raise DeploykitError(f"{path} cannot be read: {error.strerror}", str(tree.folder)) from None
        if len(data) != entry.size and entry.mode & 0o170000 == 0o100000:
            raise DeploykitError(f"{path} changed while it was sent", str(tree.folder), "deploy again")
        waiting += deflater.compress(data)
        if len(waiting) >= _FRAME:
            frame()
    if shas:
        waiting += deflater.flush()
        frame()
        alive.write(b"0\n")
