"""The life of a sandbox: up, down, reset, stop, start, reboot; and a look inside."""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import subprocess
from pathlib import Path

from . import boot, network, outer, store
from . import image as images
from .errors import SandboxError
from .image import BASE, Image
from .outer import Progress, silent
from .store import Record, Sandbox

_BOOT_SECONDS = 90
# Polled, since a `--wait` that misses its signal waits for ever.
_BOOTED = """\
while state=$(systemctl is-system-running)
    [ "$state" = initializing ] || [ "$state" = starting ]
do
    sleep 0.05
done
echo "$state"
"""
# In the background, so that the connection that asks for it has ended before it is cut.
_REBOOT = "setsid sh -c 'sleep 0.1; systemctl reboot' </dev/null >/dev/null 2>&1 &"


def prepare(progress: Progress = silent, *, image: Image = BASE) -> None:
    """Install what this machine lacks and build the image: everything slow, before the first `up`."""
    outer.check_system()
    outer.install_programs(progress)
    _built(image, progress)


def up(
    name: str = "sandbox",
    *,
    image: Image = BASE,
    memory_mb: int | None = None,
    disk_mb: int | None = None,
    install: bool = False,
    progress: Progress = silent,
) -> Sandbox:
    """A running machine of this name: the one that runs, or the one that was stopped, or a new one.

    `image`, `memory_mb` and `disk_mb` (MiB) count for a new one. `install` lets it install missing
    programs with apt. SandboxError says what stood in the way.
    """
    _check(name)
    if install:
        outer.install_programs(progress)
    outer.check_programs()
    with store.lock(name):
        record = store.read(name)
        if record is None:
            record = _new(name, image.resolved(), memory_mb, disk_mb, progress)
        elif record.running():
            boot.make_identity()
            return record.shown()
        return _boot(record, progress)


def down(name: str, *, progress: Progress = silent) -> None:
    """Shut it down and throw it away; nothing when there is none."""
    _check(name)
    with store.lock(name):
        if store.folder(name).exists():
            progress(f"taking {name} down")
            _discard(name)


def reset(name: str, *, progress: Progress = silent) -> Sandbox:
    """Pristine again: same image, limits and address, a new disk and a new host key."""
    _check(name)
    with store.lock(name):
        record = _known(name)
        progress(f"throwing away what is on {name}")
        boot.end(record, seconds=0)
        for path in _disk_paths(record):
            _remove(path)
        lowers = _built(Image(record.suite, record.packages), progress)
        key = boot.make_host_key(name)
        record = dataclasses.replace(record, host_key=key, lowers=lowers, pid=0, started=0)
        store.write(record)
        boot.create(record)
        return _boot(record, progress)


def stop(name: str, *, progress: Progress = silent) -> Sandbox:
    """Shut it down and keep its state; nothing when it is not running."""
    _check(name)
    with store.lock(name):
        record = _known(name)
        progress(f"shutting {name} down")
        boot.end(record)
        return record.shown()


def start(name: str, *, progress: Progress = silent) -> Sandbox:
    """Boot one that was stopped; the running one when it runs."""
    _check(name)
    with store.lock(name):
        record = _known(name)
        return record.shown() if record.running() else _boot(record, progress)


def reboot(name: str, *, progress: Progress = silent) -> Sandbox:
    """Reboot it from inside and wait until it has booted."""
    _check(name)
    with store.lock(name):
        record = _known(name)
        if not record.running():
            return _boot(record, progress)
        progress(f"rebooting {name}")
        before = boot.reboots(record)
        run(name, "sh", "-c", _REBOOT)
        boot.wait_for_reboot(record, before)
        return _wait(record)


def run(
    name: str,
    *argv: str,
    stdin: bytes = b"",
    check: bool = True,
    user: str = "root",
    seconds: float | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run one program inside, by the system's own ssh: an eye that is independent of deploykit.

    `argv` arrives as it is, word by word. With `check`, a status other than 0 is a SandboxError that
    holds the program's words. ssh itself answers 255.
    """
    record = _known(name)
    known_hosts = record.folder / "known_hosts"
    options = {
        "IdentityFile": store.IDENTITY,
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": known_hosts,
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "BatchMode": "yes",
        "ConnectTimeout": "10",
        # A machine that is switched off does not always say goodbye: without this, ssh would wait for it.
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "4",
        "LogLevel": "ERROR",
    }
    words = [word for option, value in options.items() for word in ("-o", f"{option}={value}")]
    result = subprocess.run(
        ["ssh", "-F", "/dev/null", *words, f"{user}@{record.address}", "--", shlex.join(argv)],
        input=stdin,
        capture_output=True,
        timeout=seconds,
        check=False,
    )
    if check and result.returncode != 0:
        said = (result.stderr + result.stdout).decode(errors="replace").strip()
        raise SandboxError(
            f"`{shlex.join(argv)}` exited {result.returncode}:\n{said[-4000:]}",
            f"sandbox {name}",
            "Look inside with ssh.",
        )
    return result


def _new(name: str, wanted: Image, memory_mb: int | None, disk_mb: int | None, progress: Progress) -> Record:
    if store.folder(name).exists():
        _discard(name)  # half made by a process that was killed
    lowers = _built(wanted, progress)
    boot.make_identity()
    with store.shared_lock("network"):
        store.folder(name).mkdir(mode=0o755, parents=True)
        key = boot.make_host_key(name)
        record = Record(
            name=name,
            address=network.free_address(),
            host_key=key,
            suite=wanted.suite,
            packages=wanted.packages,
            image=wanted.label,
            lowers=lowers,
            memory_mb=memory_mb,
            disk_mb=disk_mb,
        )
        store.write(record)
    boot.create(record)
    return record


def _boot(record: Record, progress: Progress) -> Sandbox:
    progress(f"booting {record.name} ({record.image}, {record.address})")
    if not all(Path(lower).is_dir() for lower in record.lowers):
        raise SandboxError(
            f"its image {record.lowers[0]} is gone",
            f"sandbox {record.name}",
            f"Make it anew: fab sandbox reset --name {record.name}.",
        )
    boot.make_identity()
    boot.end(record)  # a crashed owner's leftovers
    if not (record.folder / "disk").is_dir():
        boot.create(record)
    known_hosts = record.folder / "known_hosts"
    known_hosts.write_text(f"{record.address} {record.host_key}\n", encoding="ascii")
    (record.folder / "reboots").unlink(missing_ok=True)
    with store.shared_lock("network"):
        network.ensure()
    pid, started = boot.launch(record)
    record = dataclasses.replace(record, pid=pid, started=started)
    store.write(record)
    return _wait(record)


def _wait(record: Record) -> Sandbox:
    boot.wait_for_ssh(record)
    try:
        result = run(record.name, "sh", "-c", _BOOTED, check=False, seconds=_BOOT_SECONDS)
    except subprocess.TimeoutExpired:
        raise boot.failed(record, f"systemd inside was not done within {_BOOT_SECONDS} s") from None
    state = result.stdout.decode().strip()
    if state not in ("running", "degraded"):
        raise boot.failed(record, f"systemd inside says {state or result.stderr.decode().strip()!r}")
    return record.shown()


def _discard(name: str) -> None:
    """Ends it at once, as nothing of it is wanted any more, and throws its folder away."""
    record = store.read(name)
    if record is not None:
        boot.end(record, seconds=0)
    with store.shared_lock("network"):  # for as long as its address is taken, and no longer: the disk takes a while
        store.throw_away(name)
        network.release()
    store.empty_trash()


def _disk_paths(record: Record) -> list[Path]:
    return [record.folder / name for name in ("disk", "disk.img", "root", "console.log")]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _built(wanted: Image, progress: Progress) -> tuple[str, ...]:
    return tuple(os.fspath(folder) for folder in images.built(wanted, progress))


def _known(name: str) -> Record:
    store.check_name(name)
    record = store.read(name)
    if record is None:
        raise SandboxError("there is no such sandbox", f"sandbox {name}", f"Make it: fab sandbox up --name {name}.")
    return record


def _check(name: str) -> None:
    store.check_name(name)
    outer.check_system()
