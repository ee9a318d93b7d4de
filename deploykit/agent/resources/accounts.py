"""Users and groups of the host."""

from __future__ import annotations

import fcntl
import os
import stat
from typing import ClassVar

from deploykit.agent.dataclass import dataclass
from deploykit.agent.process import remembered, run
from deploykit.agent.resource import Failed, Resource, State
from deploykit.agent.resources import disk

#: Where numbers of people's accounts begin on Debian and Ubuntu (login.defs(5), UID_MIN).
_PEOPLE = 1000


@dataclass(frozen=True)
class Group(Resource):
    """A system group. Left in place by a plan: files that stay would else belong to a number that is free again."""

    removable: ClassVar[bool] = False

    name: str

    @property
    def key(self) -> str:
        return f"group {self.name}"

    def wanted(self) -> State:
        return {"exists": True}

    def observe(self) -> State | None:
        return {"exists": True} if self.name in accounts().groups else None

    def change(self, observed: State | None) -> None:
        run(("groupadd", "--system", self.name))

    def erase(self) -> str:
        if self.name in accounts().groups:
            run(("groupdel", self.name))
        return ""


@dataclass(frozen=True)
class User(Resource):
    """A system user with a group of the same name and no password. Its home is a path; a Directory makes it.

    A plan leaves it in place (its files would belong to a number that the next new user gets); `erase` is for who
    deletes those files too. An account that somebody else made is never taken over: Failed.
    """

    removable: ClassVar[bool] = False

    name: str
    home: str
    shell: str = "/usr/sbin/nologin"
    groups: tuple[str, ...] = ()
    comment: str = ""

    @property
    def key(self) -> str:
        return f"user {self.name}"

    def wanted(self) -> State:
        return {
            "home": self.home,
            "shell": self.shell,
            "comment": self.comment,
            "group": self.name,
            "groups": tuple(sorted(self.groups)),
            "password": False,
        }

    def observe(self) -> State | None:
        found = accounts()
        account = found.users.get(self.name)
        if account is None:
            return None
        return {
            "home": account.home,
            "shell": account.shell,
            "comment": account.comment,
            "group": found.names.get(account.gid, str(account.gid)),
            "groups": tuple(sorted(name for name, members in found.groups.items() if self.name in members)),
            "password": self.name in found.passwords,
        }

    def change(self, observed: State | None) -> None:
        if observed is None:
            if self.name in accounts().groups:
                raise Failed(
                    f"the host has a group {self.name} but no user of that name",
                    "Who joins a group gets its rights, so it is not taken over.",
                    f"Give the app another name, or `groupdel {self.name}` if nothing needs it.",
                )
            run(
                (
                    "useradd",
                    "--system",
                    "--no-create-home",
                    "--user-group",
                    "-d",
                    self.home,
                    *self._options(),
                    self.name,
                )
            )
            return
        self._refuse_others(observed)
        options = list(self._options())
        if observed["group"] != self.name:
            if self.name not in accounts().groups:
                Group(self.name).change(None)
            options += ["-g", self.name]
        if observed["password"]:
            options += ["-p", "!"]
        run(("usermod", *options, self.name))
        if observed["home"] != self.home:
            _rehome(self.name, self.home)

    def erase(self) -> str:
        if self.name in accounts().users:
            from deploykit.agent import user_processes  # which only a removal needs

            user_processes.end(self.name)
            user_processes.forget(self.name)
            run(("userdel", self.name))
        return ""

    def _options(self) -> tuple[str, ...]:
        return ("-s", self.shell, "-c", self.comment, "-G", ",".join(self.groups))

    def _refuse_others(self, observed: State) -> None:
        """Nobody gets another's home or shell because an app has his name."""
        uid = accounts().users[self.name].uid
        strange = observed["home"] != self.home and observed["comment"] != self.comment
        if uid >= _PEOPLE or uid == 0 or strange:
            raise Failed(
                f"the host has a user {self.name} already that is somebody else's",
                f"user number {uid}, home {observed['home']}, comment {observed['comment'] or '(none)'}",
                "Give the app another name, or remove that user if nobody needs it.",
            )


@dataclass(frozen=True)
class _Account:
    uid: int
    gid: int
    comment: str
    home: str
    shell: str


@dataclass(frozen=True)
class _Accounts:
    users: dict[str, _Account]
    groups: dict[str, tuple[str, ...]]  # members by name, without those whose own group it is
    names: dict[int, str]
    passwords: frozenset[str]  # users who have one


@remembered
def accounts() -> _Accounts:
    """The host's own accounts: /etc/passwd, group and shadow read once. Those of a directory service are not ours."""
    users: dict[str, _Account] = {}
    for fields in _table("/etc/passwd", 7):
        users[fields[0]] = _Account(int(fields[2]), int(fields[3]), fields[4], fields[5], fields[6])
    groups: dict[str, tuple[str, ...]] = {}
    names: dict[int, str] = {}
    for fields in _table("/etc/group", 4):
        groups[fields[0]] = tuple(filter(None, fields[3].split(",")))
        names.setdefault(int(fields[2]), fields[0])
    # "!" and "*" begin what no password can match (shadow(5)); an empty field would be a login without one
    passwords = frozenset(f[0] for f in _table("/etc/shadow", 9) if not f[1].startswith(("!", "*")))
    return _Accounts(users, groups, names, passwords)


def _rehome(user: str, home: str) -> None:
    """Writes another home into /etc/passwd: usermod refuses while the user runs a process, as an app's always does.

    Under the lock that usermod and all others take, lckpwdf(3).
    """
    lock = os.open("/etc/.pwd.lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        with open("/etc/passwd", encoding="utf-8", errors="surrogateescape") as file:
            found = os.fstat(file.fileno())
            rows = [line.rstrip("\n").split(":") for line in file]
        for row in rows:
            if row[0] == user and len(row) == 7:
                row[5] = home
        text = "".join(":".join(row) + "\n" for row in rows)
        content = text.encode("utf-8", "surrogateescape")
        disk.write("/etc/passwd", content, found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode))
    finally:
        os.close(lock)


def _table(path: str, width: int) -> list[list[str]]:
    with open(path, encoding="utf-8", errors="replace") as lines:
        rows = [line.rstrip("\n").split(":") for line in lines]
    return [row for row in rows if len(row) == width]
