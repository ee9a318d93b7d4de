"""Talking to the agent: one exec on a host that has it, two on one that does not."""

from __future__ import annotations

import json
import re
import shlex
import zlib
from collections.abc import Callable, Generator, Iterator
from typing import Any

from deploykit import sudo
from deploykit.bundle import Bundle
from deploykit.errors import DeploykitError
from deploykit.source import Tree, content
from deploykit.transport import Exchange, Transport

FOLDER = "/var/lib/deploykit/agent"
_ABSENT, _NO_PYTHON, _OLD_PYTHON = 97, 96, 95
_FRAME = 1 << 18
_LONG = 1 << 14  # bytes from which on a message is compressed: it fits into the first packets of a connection till then

Event = dict[str, Any]

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
        status, error = yield from self._converse(self.command(), line)
        if status == _ABSENT:
            bootstrap = shlex.join(["sh", "-c", _BOOTSTRAP, _INSTALL, self._bundle.sha, str(len(self._bundle.data))])
            status, error = yield from self._converse(f"exec {self._become()}{bootstrap}", self._bundle.data + line)
        if status:
            yield from self._explain(status, error, request, text)

    def _become(self) -> str:
        return sudo.prefix(self._transport.user, password=self._password is not None)

    def _converse(self, command: str, data: bytes) -> Generator[Event, None, tuple[int, str]]:
        begun, self._waiting = self._waiting, None
        exchange = begun or self._transport.exec(command)
        noise: list[str] = []  # a login script that prints, a key that may only run a command of its own
        if self._password is not None and "sudo -k -S" in command:
            data = self._password.encode() + b"\n" + data
        try:
            exchange.write(data)
            for line in exchange.lines():
                event = _event(line)
                if event is None:
                    noise.append(line.decode("utf-8", "replace").strip())
                    self._other_user(noise[-1])
                elif event["event"] == "tree":
                    self._answer(exchange, {"files": self._trees[event["app"]].listing()})
                elif event["event"] == "want":
                    yield event
                    self._send(exchange, self._trees[event["app"]], event["files"])
                else:
                    yield event
                    if event["event"] in ("end", "facts"):
                        return 0, ""  # all is said: that the process ends, too, would be worth one more round trip
        except ConnectionError:
            pass  # the exit status and what the host said of it tell more
        exchange.close_write()
        status, error = exchange.finish()
        return status, error if error.strip() else "\n".join(noise[-20:])

    def _other_user(self, said: str) -> None:
        if other := _OTHER_USER.search(said):
            raise DeploykitError(
                f"{self._transport.user} may not log in there", f"host {self._name}", f'write user = "{other[1]}"'
            )

    @staticmethod
    def _answer(exchange: Exchange, message: Event) -> None:
        exchange.write(_message(message))

    @staticmethod
    def _send(exchange: Exchange, tree: Tree, shas: list[str]) -> None:
        """The contents in the order asked for, as one zlib stream in frames."""
        places = {each.sha: (path, each) for path, each in tree.entries.items()}
        deflater = zlib.compressobj(1)
        waiting = bytearray()

        def frame() -> None:
            if waiting:
                exchange.write(f"{len(waiting)}\n".encode() + bytes(waiting))
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
            exchange.write(b"0\n")

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
        if status == -1 or not said:
            raise DeploykitError(
                "the connection was lost",
                where,
                "what had begun goes on there; `fab deploy` again shows how it ended, and finishes what did not",
            )
        raise DeploykitError(f"the agent ended with {status}", where, said)


def _event(line: bytes) -> Event | None:
    """What the agent says; None for a line that is not its own."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None
