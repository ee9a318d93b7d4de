"""Talking to the agent: one exec on a host that has it, two on one that does not."""

from __future__ import annotations

import json
import shlex
import zlib
from collections.abc import Callable, Generator, Iterator
from typing import Any

from deploykit.bundle import Bundle
from deploykit.errors import DeploykitError
from deploykit.source import Tree, content
from deploykit.transport import Exchange, Transport

FOLDER = "/var/lib/deploykit/agent"
_ABSENT, _NO_PYTHON, _OLD_PYTHON = 97, 96, 95
_FRAME = 1 << 18

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

#: python3 is all that is needed; a minimal image may lack it.
_BOOTSTRAP = (
    "command -v python3 >/dev/null || "
    "{ export DEBIAN_FRONTEND=noninteractive; "
    "apt-get -qq update && apt-get -qq install -y --no-install-recommends python3; } </dev/null >&2 || exit 96; "
    'exec python3 -IS -c "$0" "$@"'
)


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

    def events(self, request: Event) -> Iterator[Event]:
        """Sends a request and yields what the agent says. Raises DeploykitError when there is no agent to be had."""
        line = json.dumps(request, separators=(",", ":")).encode() + b"\n"
        place = f"{FOLDER}/{self._bundle.sha}"
        become = self._become()
        run = f"test -d {place} || exit {_ABSENT}; exec {become}python3 -IS {place}"
        status, error = yield from self._converse(run, line)
        if status == _ABSENT:
            bootstrap = shlex.join(["sh", "-c", _BOOTSTRAP, _INSTALL, self._bundle.sha, str(len(self._bundle.data))])
            status, error = yield from self._converse(f"exec {self._become()}{bootstrap}", self._bundle.data + line)
        if status:
            yield from self._explain(status, error, request)

    def _become(self) -> str:
        if self._transport.user == "root":
            return ""
        # -k: sudo must read the password even when it remembers an earlier one, or it would be left for the agent.
        return "sudo -n " if self._password is None else "sudo -k -S -p '' "

    def _converse(self, command: str, data: bytes) -> Generator[Event, None, tuple[int, str]]:
        exchange = self._transport.exec(command)
        if self._password is not None and "sudo -k -S" in command:
            data = self._password.encode() + b"\n" + data
        try:
            exchange.write(data)
            for line in exchange.lines():
                event: Event = json.loads(line)
                if event["event"] == "tree":
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
        return exchange.finish()

    @staticmethod
    def _answer(exchange: Exchange, message: Event) -> None:
        exchange.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

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

    def _explain(self, status: int, error: str, request: Event) -> Iterator[Event]:
        where = f"host {self._name}"
        said = error.strip()
        if self._transport.user != "root" and "sudo" in said:
            if "password is required" in said and self._password is None:
                self._password = self._ask(f"sudo password of {self._transport.user} on {self._name}")
                yield from self.events(request)
                return
            if "not in the sudoers" in said or "may not run sudo" in said or "not allowed" in said:
                raise DeploykitError(
                    f"{self._transport.user} may not become root there", where, "log in as root or as a sudoer (`user`)"
                )
            if "incorrect password" in said or "no password was provided" in said or "try again" in said:
                self._password = None
                raise DeploykitError("sudo does not accept the password", where, "run again")
        if status == 127 and "sudo" in said:
            raise DeploykitError(
                f"{self._transport.user} is not root and there is no sudo", where, "log in as root (`user`)"
            )
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
