"""Users and groups of the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from deploykit.agent.process import remembered, run
from deploykit.agent.resource import Failed, Resource, State

#: Where numbers of people's accounts begin on Debian and Ubuntu (login.defs(5), UID_MIN).
_PEOPLE = 1000


@dataclass(frozen=True, kw_only=False)
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
        run(("groupadd", "--system", "--", self.name))

    def remove(self) -> None:
        run(("groupdel", "--", self.name))


@dataclass(frozen=True, kw_only=False)
class User(Resource):
    """A system user with a group of the same name and no password. Its home is a path; a Directory makes it.

    A plan leaves it in place (its files would belong to a number that the next new user gets); `remove` is for who
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
            group = ("--gid", self.name) if self.name in accounts().groups else ("--user-group",)
            run(("useradd", "--system", "--no-create-home", *group, *self._options(), "--", self.name))
            return
        self._refuse_others(observed)
        options = list(self._options())
        if observed["home"] != self.home:
            # usermod refuses while a process of the user's runs, although a new home harms none: not with --prefix.
            options += ["--prefix", "/"]
        if observed["group"] != self.name:
            Group(self.name).change(None) if self.name not in accounts().groups else None
            options += ["--gid", self.name]
        if observed["password"]:
            options += ["--password", "!"]
        run(("usermod", *options, "--", self.name))

    def remove(self) -> None:
        if self.name in accounts().users:
            run(("userdel", "--", self.name))

    def _options(self) -> tuple[str, ...]:
        options = ("--home-dir", self.home, "--shell", self.shell, "--comment", self.comment)
        return (*options, "--groups", ",".join(self.groups))

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


def _table(path: str, width: int) -> list[list[str]]:
    with open(path, encoding="utf-8", errors="replace") as lines:
        rows = [line.rstrip("\n").split(":") for line in lines]
    return [row for row in rows if len(row) == width]
