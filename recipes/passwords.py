"""The passwords of those who may see a site: a file that nginx asks at each request."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import stat

from deploykit.agent.dataclass import dataclass
from deploykit.agent.envfile import plain
from deploykit.agent.resource import Failed, HostSecret, Resource, Secret, State
from deploykit.agent.resources import Absent, disk

_DIGEST = 20  # bytes of SHA-1


@dataclass(frozen=True, kw_only=True)
class Passwords(Resource):
    """`users` are (name, password) pairs. Root writes, nginx reads, nobody else.

    The scheme is {SSHA}, the salted one of those that nginx knows everywhere
    (https://nginx.org/en/docs/http/ngx_http_auth_basic_module.html): crypt(3) is not in Python's library from 3.13 on,
    and slow by intent, while nginx checks a password at every request, in the process that serves all others meanwhile.
    What protects the passwords is that only root and nginx can read the file; what a salt of 16 random bytes adds is
    that, should it leak, each has to be guessed for itself. So take long ones that are used nowhere else.

    A salt is kept as long as its password is right: what changed is seen without knowing the salt beforehand.
    """

    path: str
    users: tuple[tuple[str, Secret | HostSecret], ...]

    @property
    def key(self) -> str:
        return f"passwords {self.path}"

    def wanted(self) -> State:
        return {
            "users": tuple(name for name, _ in self.users),
            "owner": "root",
            "group": "www-data",
            "mode": "0640",
            **{f"password of {name}": Secret(self._password(name, value)) for name, value in self.users},
        }

    def observe(self) -> State | None:
        try:
            found = os.lstat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        hashes = self._hashes() if stat.S_ISREG(found.st_mode) else {}
        state: State = {
            "users": tuple(hashes),
            "owner": disk.owner(found.st_uid),
            "group": disk.group(found.st_gid),
            "mode": disk.permissions(found),
        }
        for name, value in self.users:
            password = self._password(name, value)
            state[f"password of {name}"] = Secret(password if fits(password, hashes.get(name, "")) else "")
        return state

    def change(self, observed: State | None) -> None:
        kept = self._hashes()
        lines = []
        for name, value in self.users:
            password = self._password(name, value)
            there = kept.get(name, "")
            lines.append(f"{name}:{there if fits(password, there) else hashed(password, secrets.token_bytes(16))}\n")
        disk.write(self.path, "".join(lines).encode(), 0, disk.gid("www-data"), 0o640)

    def remove(self) -> None:
        disk.unlink(self.path)

    def _hashes(self) -> dict[str, str]:
        try:
            with open(os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)) as file:
                lines = file.read().splitlines()
        except (OSError, ValueError):
            return {}
        return {name: kept for name, colon, kept in (line.partition(":") for line in lines) if colon}

    def _password(self, name: str, value: Secret | HostSecret) -> str:
        password = plain(self.app, value, make=False)
        if not password:
            raise Failed(
                f"the password of {name} for app {self.app} is empty: anybody could guess it",
                todo=f"give one: basic_auth.{name} in [apps.{self.app}.nginx]",
            )
        return password


@dataclass(frozen=True)
class NoPasswords(Absent):
    """Nobody is asked any more.

    It has the key of `Passwords`, whose file would else be removed before anything is changed: nginx would turn
    everybody away (403) until it has the new site.
    """

    @property
    def key(self) -> str:
        return f"passwords {self.path}"


def hashed(password: str, salt: bytes) -> str:
    """A password as nginx's {SSHA} has it."""
    return "{SSHA}" + base64.b64encode(_digest(password, salt) + salt).decode()


def fits(password: str, kept: str) -> bool:
    """Whether `kept` was made of this password by `hashed`."""
    try:
        data = base64.b64decode(kept.removeprefix("{SSHA}"), validate=True)
    except ValueError:
        return False
    whole = kept.startswith("{SSHA}") and len(data) > _DIGEST
    return whole and hmac.compare_digest(data[:_DIGEST], _digest(password, data[_DIGEST:]))


def _digest(password: str, salt: bytes) -> bytes:
    return hashlib.sha1(password.encode() + salt).digest()
