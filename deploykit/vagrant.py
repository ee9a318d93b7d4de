"""Vagrant machines: how to reach one, as Vagrant itself says it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from deploykit.errors import DeploykitError

_SECONDS = 120  # Vagrant may wait for another Vagrant that holds its lock


def ssh_config(folder: Path, machine: str, where: str) -> str:
    """What `vagrant ssh-config` says of a running machine of the Vagrantfile in `folder`.

    Asked for each time (1 to 2 seconds): with every `vagrant up` or `reload`, address and port may be others, and
    another machine may have the old ones. Raises DeploykitError; `where` is for its words.
    """
    if not folder.is_dir():
        raise DeploykitError(f"there is no folder {folder}", where, "correct `vagrant`, the folder of a Vagrantfile")
    # Vagrant would look in the folders above, too, and find a Vagrantfile that is not meant.
    names = (os.environ.get("VAGRANT_VAGRANTFILE", "Vagrantfile"), "vagrantfile")
    if not any((folder / name).is_file() for name in names):
        raise DeploykitError(f"there is no Vagrantfile in {folder}", where, "correct `vagrant`, or run: vagrant init")
    answer = _ask(folder, where, "ssh-config", machine)
    for _, kind, *data in answer:
        if kind == "ssh-config":
            return data[0]
    raise _refused(answer, folder, machine, where)


#: Lines of Vagrant's machine-readable output without their time: machine, kind, data and further data.
_Answer = list[list[str]]


def _ask(folder: Path, where: str, *words: str) -> _Answer:
    env = {**os.environ, "VAGRANT_CWD": str(folder), "VAGRANT_CHECKPOINT_DISABLE": "1"}  # no look for updates
    try:
        done = subprocess.run(
            ["vagrant", "--machine-readable", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=env,
            timeout=_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        todo = "install it (Debian, Ubuntu: apt-get install vagrant), or give `address` instead of `vagrant`"
        raise DeploykitError("vagrant is not installed on this machine", where, todo) from None
    except subprocess.TimeoutExpired:
        todo = f"is another Vagrant busy? Look with: cd {folder} && vagrant status"
        raise DeploykitError(f"vagrant {words[0]} did not end within {_SECONDS} seconds", where, todo) from None
    lines = [line.split(",") for line in done.stdout.decode("utf-8", "replace").splitlines()]
    found = [[_plain(part) for part in line[1:]] for line in lines if len(line) > 3]
    if not found:  # it broke before it could speak: its launcher is damaged, a plugin does not load
        found = [["", "error-exit", "", done.stderr.decode("utf-8", "replace").strip() or f"exit {done.returncode}"]]
    return found


def _plain(text: str) -> str:
    return text.replace("\\n", "\n").replace("\\r", "\r").replace("%!(VAGRANT_COMMA)", ",")


def _refused(answer: _Answer, folder: Path, machine: str, where: str) -> DeploykitError:
    kind, words = next(
        ((data[0].rpartition(":")[2], " ".join(data[1:])) for _, name, *data in answer if name == "error-exit"),
        ("", "nothing"),
    )
    if kind == "SSHNotReady":
        todo = f"start it with: cd {folder} && vagrant up {machine}"
        return DeploykitError(f"the Vagrant machine {machine} is not running", where, todo)
    if kind == "MachineNotFound":
        known = dict.fromkeys(line[0] for line in _ask(folder, where, "status") if line[0])
        todo = f"""machines there: {", ".join(known)}\nvagrant = {{ folder = "...", machine = "NAME" }} names one"""
        return DeploykitError(f"there is no machine {machine} in {folder}/Vagrantfile", where, todo)
    todo = f"make this work first: cd {folder} && vagrant ssh {machine}"
    return DeploykitError(f"vagrant ssh-config {machine} says: {words.strip()}", where, todo)
