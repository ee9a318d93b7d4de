"""The machine that sandboxes run on: what it must be and have, and running its programs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .errors import SandboxError

Progress = Callable[[str], None]

# Program -> Debian package. Debian and Ubuntu name them alike.
PROGRAMS = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "mkfs.ext4": "e2fsprogs",
    "unshare": "util-linux",
    "mount": "mount",
}
INSTALL = (
    "apt-get install --no-install-recommends "
    "systemd-container mmdebstrap nftables iproute2 openssh-client ca-certificates"
)
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def silent(_: str) -> None:
    """The progress callable that shows nothing."""


def only(start: str, progress: Progress) -> Progress:
    """Pass on the lines that begin with `start`, as "installing nginx" for "Setting up nginx (1.22) ..."."""

    def chosen(line: str) -> None:
        if line.startswith(start):
            rest = line.removeprefix(start).removesuffix("...").strip()
            progress(f"installing {rest.split(' ')[0]}" if start == "Setting up " else rest)

    return chosen


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """A small, predictable environment: English messages, and sbin on PATH (a plain `su` has none)."""
    kept = {name: os.environ[name] for name in ("HOME", "http_proxy", "https_proxy", "no_proxy") if name in os.environ}
    path = os.environ.get("PATH", "/usr/bin:/bin")
    return {**kept, "PATH": f"{path}:{_SBIN}", "LC_ALL": "C.UTF-8", **(extra or {})}


def missing() -> tuple[str, ...]:
    """Packages whose programs this machine lacks, sorted."""
    path = environment()["PATH"]
    return tuple(sorted({package for name, package in PROGRAMS.items() if not shutil.which(name, path=path)}))


def check_system() -> None:
    """Refuse, with the reason, a machine that sandboxes cannot run on."""
    if not _is_debian():
        raise SandboxError(
            "sandboxes need Debian or Ubuntu",
            "this machine",
            "Use a virtual machine instead: the folder vagrant/ has one, or give any host you can reach over SSH.",
        )
    if os.geteuid() != 0:
        raise SandboxError("sandboxes need root", "this machine", "Run the same command with sudo.")


def check_programs() -> None:
    """Refuse a machine that lacks a program, with the line that installs it."""
    if lacking := missing():
        raise SandboxError(
            f"missing: {', '.join(lacking)}", "this machine", f"Run `apt-get update && {install_line()}` and try again."
        )


def install_line() -> str:
    """What to type to install everything that sandboxes need."""
    return " ".join([INSTALL, *(package for package in missing() if package not in INSTALL.split())])


def install_programs(progress: Progress = silent) -> None:
    """Install what is missing with apt; nothing is run when nothing is missing."""
    if not missing():
        return
    progress("installing systemd-container, mmdebstrap, nftables")
    apt = environment({"DEBIAN_FRONTEND": "noninteractive"})
    advice = f"Run `apt-get update && {install_line()}` by hand and read its output."
    call(["apt-get", "-q", "update"], "apt-get update", advice, env=apt)
    words = install_line().split()
    shown = only("Setting up ", progress)
    call([*words[:2], "-q", "-y", *words[2:]], "apt-get install", advice, env=apt, progress=shown)
    check_programs()


def call(
    argv: Sequence[str | Path],
    where: str,
    todo: str,
    *,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> str:
    """Run one program to its end and return its output; each line also goes to `progress`.

    Its last lines are in the SandboxError when it fails.
    """
    lines: deque[str] = deque(maxlen=400)
    with subprocess.Popen(
        [os.fspath(word) for word in argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(env or environment()),
    ) as process:
        assert process.stdin and process.stdout  # both are pipes: mypy cannot see it
        try:
            # What we send is at most a few kilobytes, below a pipe's 64 KiB: this cannot block.
            process.stdin.write(stdin)
            process.stdin.close()
        except BrokenPipeError:
            pass  # it ended without reading; its exit status tells why
        for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip()
            lines.append(line)
            progress(line)
    if process.returncode != 0:
        tail = "\n".join(list(lines)[-15:])
        program = argv[argv.index("--") + 1] if argv[0] == "unshare" else argv[0]
        raise SandboxError(f"{program} exited {process.returncode}:\n{tail}", where, todo)
    return "\n".join(lines)


def propagated(machine: str) -> Path:
    """The folder that systemd-nspawn makes for a machine, and leaves behind where /run is no tmpfs."""
    return Path("/run/systemd/nspawn/propagate") / machine


def codename() -> str:
    """This system's release name, such as "bookworm"; empty when it does not say."""
    return _os_release().get("VERSION_CODENAME", "")


def _is_debian() -> bool:
    release = _os_release()
    return "debian" in (release.get("ID", ""), *release.get("ID_LIKE", "").split())


def _os_release() -> dict[str, str]:
    try:
        text = Path("/etc/os-release").read_text(encoding="utf-8")
    except OSError:
        return {}
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}
