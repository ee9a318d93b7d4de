"""One machine's body: its files, its process, its first answer, its end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from . import cgroup, network, outer, store
from .errors import SandboxError
from .image import USERS
from .outer import call, environment
from .store import Record

_BOOT_SECONDS = 90.0
_STOP_SECONDS = 30.0

# The process that owns a machine is the first of a pid namespace and has a mount namespace of its own: the
# kernel takes every process and mount away with it, whatever kills it. (Killing systemd-nspawn alone leaves
# the guest running.) 133 is nspawn's word for "the guest wants to reboot". `volatile`: no fsync reaches the
# disk, as nobody needs a throw-away machine after a power cut.
_NAMESPACES = (
    "unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
)  # fmt: skip
_OWNER = """\
set -u
state=$1 lowers=$2 cgroups=$3; shift 3
for group in $cgroups; do echo $$ > "$group/cgroup.procs"; done
if [ -f "$state/disk.img" ]; then mount -o loop "$state/disk.img" "$state/disk" || exit 1; fi
pid=
trap '[ -z "$pid" ] || kill -TERM "$pid"' TERM
while :; do
    rm -rf "$state/disk/work/work/incompat"
    mount -t overlay deploykit \\
        -o "lowerdir=$lowers,upperdir=$state/disk/upper,workdir=$state/disk/work,redirect_dir=on,volatile" \\
        "$state/root" || exit 1
    systemd-nspawn "$@" &
    pid=$!
    wait "$pid"; status=$?
    while kill -0 "$pid" 2>/dev/null; do wait "$pid"; status=$?; done
    umount "$state/root"
    [ "$status" = 133 ] || exit "$status"
    echo >> "$state/reboots"
done
"""
# Starts the owner in the background of a shell that ends at once: the owner is no child of ours, so it is
# neither a zombie when it ends nor gone when we do.
_LAUNCH = 'console=$1; shift; setsid "$@" </dev/null >>"$console" 2>&1 & echo $!'


def create(record: Record) -> None:
    """Lay out a pristine machine's folder: what differs from its image, and an empty rest."""
    folder = record.folder
    disk, part = folder / "disk", folder / "disk.part"
    (folder / "root").mkdir(mode=0o755, exist_ok=True)
    if part.exists():
        shutil.rmtree(part)
    part.mkdir(mode=0o700)
    (part / "upper").mkdir(mode=0o755)
    (part / "work").mkdir(mode=0o755)
    _Seed(part / "upper", Path(record.lowers[-1])).write(record)
    if record.disk_mb is None:
        part.rename(disk)  # a folder named `disk` is complete
        return
    # mkfs fills the file system from a folder, so the first boot needs no mount of ours.
    image = folder / "disk.img"
    with image.open("wb") as handle:
        handle.truncate(record.disk_mb * 1024 * 1024)
    where = f"sandbox {record.name}"
    argv: list[str | Path] = ["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", "-d", part, image]
    call(argv, where, "Give it more (disk_mb), or make room on this machine.")
    shutil.rmtree(part)
    disk.mkdir(mode=0o700)


def make_host_key(name: str) -> str:
    """Make a new host key in the machine's folder; return its public half, as known_hosts has it."""
    target = store.folder(name) / "host_key"
    for path in (target, target.with_suffix(".pub")):
        path.unlink(missing_ok=True)
    return _keygen(target)


def make_identity() -> None:
    """Make the key that opens every sandbox, once. With sudo it belongs to who called sudo: they log in."""
    with store.shared_lock("identity"):
        if not store.IDENTITY.exists():
            part = store.IDENTITY.with_name("new_ed25519")
            for path in (part, part.with_suffix(".pub")):
                path.unlink(missing_ok=True)
            _keygen(part)
            part.with_suffix(".pub").replace(store.IDENTITY.with_suffix(".pub"))
            part.replace(store.IDENTITY)
        if (uid := os.environ.get("SUDO_UID", "")).isdecimal():
            os.chown(store.IDENTITY, int(uid), -1)


def launch(record: Record) -> tuple[int, int]:
    """Start the owner; return its pid and start time."""
    folder = record.folder
    guest: list[str | Path] = [
        "--quiet", "--register=no", "--keep-unit", "--settings=no", "-D", folder / "root",
        f"--machine=dk{record.octet}", f"--hostname={record.name}", "-b", "--console=passive",
        f"--network-bridge={network.BRIDGE}", "--resolv-conf=off", "--timezone=off", "--link-journal=no",
    ]  # fmt: skip
    owner = [*_NAMESPACES, "sh", "-c", _OWNER, "deploykit-sandbox"]
    groups = cgroup.make(record)
    state: list[str | Path] = [folder, ":".join(record.lowers), " ".join(map(str, groups))]
    argv: list[str | Path] = [*cgroup.scope(record), *owner, *state, *guest]
    result = subprocess.run(
        ["sh", "-c", _LAUNCH, "sh", folder / "console.log", *argv],
        stdout=subprocess.PIPE,
        check=True,
        start_new_session=True,
        # /tmp on the disk, as on a VM; one cgroup v2 tree inside, whatever the outer machine has.
        env=environment({"SYSTEMD_NSPAWN_TMPFS_TMP": "0", "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}),
    )
    pid = int(result.stdout)
    return pid, store.start_time(pid)


def wait_for_ssh(record: Record) -> None:
    """Until sshd greets; SandboxError with the console's last lines when it does not, or the owner dies."""
    greeting = b""

    def greets() -> bool:
        nonlocal greeting
        try:
            with socket.create_connection((record.address, 22), timeout=1) as connection:
                greeting = connection.recv(4)
        except OSError:
            return False
        return greeting == b"SSH-"

    _until(greets, record, "its sshd did not answer")


def wait_for_reboot(record: Record, before: int) -> None:
    _until(lambda: reboots(record) > before, record, "it did not reboot")


def reboots(record: Record) -> int:
    """How often the guest has rebooted by itself since it was started."""
    try:
        return (record.folder / "reboots").stat().st_size
    except OSError:
        return 0


def end(record: Record, seconds: float = _STOP_SECONDS) -> None:
    """Shut the machine down, or kill it when `seconds` are over; return when nothing of it is left."""
    if record.running():
        _ask_to_end(record.pid)
        deadline = time.monotonic() + seconds
        while record.running() and time.monotonic() < deadline:
            time.sleep(0.02)
        if record.running():
            with contextlib.suppress(ProcessLookupError):
                os.kill(record.pid, signal.SIGKILL)
    # In a machine's groups there is nothing but the machine: what is left is of an owner we lost sight of.
    deadline = time.monotonic() + 10
    while record.running() or network.veth(record.octet).exists() or not cgroup.remove(record):
        if not record.running():
            cgroup.kill(record)
        if time.monotonic() > deadline:
            raise SandboxError(
                f"process {record.pid}, {network.veth(record.octet).name} or its cgroup is still there",
                f"sandbox {record.name}",
                "Wait a moment and try again; `ps` and `ip link` tell which.",
            )
        time.sleep(0.01)
    with contextlib.suppress(OSError):  # where /run is no tmpfs, nspawn fails to remove it
        outer.propagated(f"dk{record.octet}").rmdir()


def _ask_to_end(pid: int) -> None:
    """SIGTERM to the shell in the namespace: `unshare` itself does not pass it on."""
    with contextlib.suppress(OSError):  # it may have ended by itself just now
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split():
            os.kill(int(child), signal.SIGTERM)


def failed(record: Record, what: str) -> SandboxError:
    try:
        text = (record.folder / "console.log").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    tail = "\n".join([line.rstrip() for line in text.splitlines() if line.strip()][-15:])
    return SandboxError(
        f"{what}. The console's last lines:\n{tail}",
        f"sandbox {record.name}",
        f"Make it anew: fab sandbox reset --name {record.name}.",
    )


def _until(true: Callable[[], bool], record: Record, what: str) -> None:
    deadline = time.monotonic() + _BOOT_SECONDS
    while not true():
        if not record.running():
            raise failed(record, "it stopped while booting")
        if time.monotonic() > deadline:
            raise failed(record, f"{what} within {_BOOT_SECONDS:.0f} s")
        time.sleep(0.02)


def _keygen(target: Path) -> str:
    argv: list[str | Path] = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "deploykit-sandbox", "-f", target]
    call(argv, str(target), f"Check that there is room and that {target.parent} can be written.")
    kind, key = target.with_suffix(".pub").read_text(encoding="ascii").split()[:2]
    return f"{kind} {key}"


class _Seed:
    """Files laid into the upper folder before the first boot."""

    def __init__(self, upper: Path, lower: Path) -> None:
        self._upper = upper
        self._lower = lower

    def write(self, record: Record) -> None:
        name = record.name
        self._file("etc/hostname", f"{name}\n")
        self._file("etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost ip6-localhost ip6-loopback\n")
        self._file("etc/machine-id", f"{uuid.uuid4().hex}\n", mode=0o444)
        self._file("etc/resolv.conf", network.nameservers())
        self._file(
            "etc/systemd/network/10-host0.network",
            f"[Match]\nName=host0\n\n[Network]\nAddress={record.address}/24\nGateway={network.gateway()}\n"
            "IPv6AcceptRA=no\nLinkLocalAddressing=no\n",
        )
        key = record.folder / "host_key"
        self._file("etc/ssh/ssh_host_ed25519_key", key.read_text(encoding="ascii"), mode=0o600)
        self._file("etc/ssh/ssh_host_ed25519_key.pub", f"{record.host_key} root@{name}\n")
        public = store.IDENTITY.with_suffix(".pub").read_text(encoding="ascii")
        for user, uid in USERS.items():
            home = "root" if user == "root" else f"home/{user}"
            self._file(f"{home}/.ssh/authorized_keys", public, mode=0o600, uid=uid)
            folder = self._upper / home / ".ssh"
            folder.chmod(0o700)
            os.chown(folder, uid, uid)
        self._certificates()

    def _certificates(self) -> None:
        """What this machine trusts: a company's own authority is needed for pip and apt inside too."""
        bundle = Path("/etc/ssl/certs/ca-certificates.crt")
        if not bundle.exists():
            return
        self._file("etc/ssl/certs/ca-certificates.crt", bundle.read_text(encoding="utf-8"))
        own = {path.read_bytes(): path for path in Path("/usr/local/share/ca-certificates").rglob("*.crt")}
        for path in own.values():
            self._file(os.fspath(path).lstrip("/"), path.read_text(encoding="utf-8"))
        if not own:
            return
        for path in bundle.parent.iterdir():  # and its links by hash, which OpenSSL looks for
            if path == bundle or not path.is_file() or path.read_bytes() not in own:
                continue
            target = self._upper / "etc/ssl/certs" / path.name
            if path.is_symlink():
                target.symlink_to(path.readlink())
            else:
                self._file(f"etc/ssl/certs/{path.name}", path.read_text(encoding="utf-8"))

    def _file(self, path: str, text: str, *, mode: int = 0o644, uid: int = 0) -> None:
        target = self._upper / path
        for parent in reversed(Path(path).parents[:-1]):
            self._folder(parent)
        target.write_text(text, encoding="utf-8")
        target.chmod(mode)
        os.chown(target, uid, uid)

    def _folder(self, path: Path) -> None:
        """A folder of the upper hides the lower one's mode and owner: so it takes them over."""
        target = self._upper / path
        if target.is_dir():
            return
        target.mkdir(mode=0o755)
        try:
            seen = (self._lower / path).stat()
        except FileNotFoundError:
            return
        target.chmod(stat.S_IMODE(seen.st_mode))
        os.chown(target, seen.st_uid, seen.st_gid)
