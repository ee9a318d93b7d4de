"""Sandboxes are real machines: every test boots one and looks at it, and at what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deploykit import sandbox
from deploykit.sandbox import Sandbox, SandboxError

from .conftest import unique

pytestmark = pytest.mark.only("nspawn", "about the sandbox itself")

Machine = Callable[..., Sandbox]


@pytest.fixture
def machine(prepared: None) -> Iterator[Machine]:
    """Call it to get a running, pristine sandbox."""
    with contextlib.ExitStack() as ends:

        def make(suffix: str = "a", **wanted: object) -> Sandbox:
            name = unique(suffix)
            ends.callback(sandbox.down, name)
            return sandbox.up(name, **wanted)  # type: ignore[arg-type]

        yield make


def said(name: str, *argv: str, **how: object) -> str:
    return sandbox.run(name, *argv, **how).stdout.decode().strip()  # type: ignore[arg-type]


def processes(name: str) -> list[str]:
    listed = subprocess.run(["ps", "-eww", "-o", "pid,stat,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if f"--hostname={name}" in line and "<defunct>" not in line]


def traces(host: Sandbox) -> list[str]:
    """What of a machine can still be found on this one."""
    octet = host.address.rpartition(".")[2]
    found = processes(host.name)
    found += [line for line in Path("/proc/self/mounts").read_text().splitlines() if f"/{host.name}/" in line]
    loops = subprocess.run(["losetup", "--list", "--noheadings"], capture_output=True, text=True, check=True)
    found += [line for line in loops.stdout.splitlines() if f"/{host.name}/" in line]
    found += [str(path) for path in Path("/sys/class/net").glob(f"vb-dk{octet}")]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/deploykit-sandbox-{octet}")]
    found += [str(path) for path in Path("/run/systemd/nspawn/propagate").glob(f"dk{octet}")]
    found += [str(path) for path in Path("/var/lib/deploykit-sandbox/hosts").glob(host.name)]
    found += [str(path) for path in Path("/var/lib/deploykit-sandbox/trash").glob(f"{host.name}.*")]
    found += [str(path) for path in Path("/var/lib/deploykit-sandbox/locks").glob(f"host-{host.name}")]
    return found


def eventually(true: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_up_answers_with_the_known_key(machine: Machine, tmp_path: Path) -> None:
    host = machine()
    assert host.running and host.port == 22 and host.user == "root"
    assert host.identity.stat().st_mode & 0o777 == 0o600
    assert said(host.name, "uname", "-n") == host.name
    scanned = subprocess.run(["ssh-keyscan", host.address], capture_output=True, text=True, check=True).stdout
    assert [line.partition(" ")[2] for line in scanned.splitlines()] == [host.host_key]
    assert sandbox.find(host.name) == host
    assert host in sandbox.every()


def test_a_machine_is_like_a_fresh_cloud_server(machine: Machine) -> None:
    host = machine()
    assert said(host.name, "systemctl", "is-system-running") == "running"
    assert said(host.name, "systemctl", "list-units", "--failed", "--no-legend") == ""
    assert said(host.name, "getent", "ahostsv4", "localhost").startswith("127.0.0.1")
    assert said(host.name, "stat", "--file-system", "--format=%T", "/run") == "tmpfs"
    owned = said(host.name, "stat", "--format=%a %U %n", "/etc", "/etc/ssh", "/etc/ssl/certs", "/root", "/tmp")
    assert owned.splitlines() == [
        "755 root /etc",
        "755 root /etc/ssh",
        "755 root /etc/ssl/certs",
        "700 root /root",
        "1777 root /tmp",
    ]
    assert said(host.name, "stat", "--format=%U", "/home/deploy", "/home/deploy/.ssh") == "deploy\ndeploy"
    said(host.name, "logger", "a word for the journal")
    assert eventually(lambda: "a word for the journal" in said(host.name, "journalctl", "--no-pager", "-n", "50"))
    for absent in ("nginx", "curl", "git", "pip3"):
        assert sandbox.run(host.name, "which", absent, check=False).returncode == 1


def test_the_users_of_the_image(machine: Machine) -> None:
    host = machine()
    assert said(host.name, "sudo", "-n", "id", "-un", user="deploy") == "root"
    assert sandbox.run(host.name, "sudo", "-n", "id", user="asker", check=False).returncode == 1
    assert said(host.name, "sudo", "-S", "id", "-un", user="asker", stdin=b"asker\n") == "root"
    assert said(host.name, "id", "-un", user="limited") == "limited"
    refused = sandbox.run(host.name, "sudo", "-S", "id", user="limited", stdin=b"limited\n", check=False)
    assert refused.returncode != 0


def test_words_arrive_as_they_are(machine: Machine) -> None:
    host = machine()
    words = ["a b", "$HOME", "'\"", "", "*", "ä; false", "-n"]
    assert sandbox.run(host.name, "printf", "%s|", *words).stdout.decode() == "".join(f"{word}|" for word in words)
    assert sandbox.run(host.name, "cat", stdin=b"\x00\xff\n").stdout == b"\x00\xff\n"
    with pytest.raises(SandboxError, match="no such file"):
        sandbox.run(host.name, "sh", "-c", "echo no such file >&2; exit 3")
    assert sandbox.run(host.name, "sh", "-c", "exit 3", check=False).returncode == 3


def test_a_second_up_changes_nothing(machine: Machine) -> None:
    host = machine()
    began = time.monotonic()
    assert sandbox.up(host.name) == host
    assert time.monotonic() - began < 0.5


def test_reset_makes_it_pristine(machine: Machine) -> None:
    host = machine()
    said(host.name, "sh", "-c", "echo changed > /etc/motd; rm -rf /usr/share/doc; touch /root/left")
    again = sandbox.reset(host.name)
    assert again.address == host.address and again.host_key != host.host_key
    assert said(host.name, "ls", "-A", "/usr/share/doc") != ""
    assert "changed" not in said(host.name, "cat", "/etc/motd")
    assert sandbox.run(host.name, "test", "-e", "/root/left", check=False).returncode == 1


def test_state_is_kept_over_reboot_and_stop(machine: Machine) -> None:
    host = machine()
    said(host.name, "sh", "-c", "echo kept > /srv/word; mv /usr/share/doc /usr/share/papers")
    boot = said(host.name, "cat", "/proc/sys/kernel/random/boot_id")
    assert sandbox.reboot(host.name).pid == host.pid
    assert said(host.name, "cat", "/proc/sys/kernel/random/boot_id") != boot
    assert said(host.name, "cat", "/srv/word") == "kept"

    stopped = sandbox.stop(host.name)
    assert not stopped.running and stopped == sandbox.find(host.name)
    assert processes(host.name) == []
    started = sandbox.start(host.name)
    assert started.running and started.address == host.address and started.host_key == host.host_key
    assert said(host.name, "cat", "/srv/word") == "kept"

    sandbox.stop(host.name)
    assert sandbox.up(host.name).running
    assert said(host.name, "ls", "/usr/share/papers") != ""


def test_a_reboot_from_inside_comes_back(machine: Machine) -> None:
    host = machine()
    boot = said(host.name, "cat", "/proc/sys/kernel/random/boot_id")
    sandbox.run(host.name, "reboot", check=False)

    def other_boot() -> bool:
        seen = sandbox.run(host.name, "cat", "/proc/sys/kernel/random/boot_id", check=False)
        return seen.returncode == 0 and seen.stdout.decode().strip() != boot

    assert eventually(other_boot, 30)


def test_a_poweroff_from_inside_is_seen(machine: Machine) -> None:
    host = machine()
    sandbox.run(host.name, "poweroff", check=False)
    assert eventually(lambda: not sandbox.find(host.name).running, 30)  # type: ignore[union-attr]
    assert sandbox.up(host.name).running


def test_down_leaves_nothing(machine: Machine) -> None:
    host = machine("disk", disk_mb=64)
    assert traces(host) != []
    sandbox.down(host.name)
    assert traces(host) == []
    assert sandbox.find(host.name) is None
    sandbox.down(host.name)


def test_a_killed_owner_leaves_nothing_running(machine: Machine) -> None:
    host = machine("crash", disk_mb=64)
    said(host.name, "sh", "-c", "echo kept > /srv/word")
    os.kill(host.pid, signal.SIGKILL)
    assert eventually(lambda: processes(host.name) == [])
    found = sandbox.find(host.name)
    assert found is not None and not found.running
    assert sandbox.up(host.name).running
    assert said(host.name, "cat", "/srv/word") == "kept"
    os.kill(sandbox.find(host.name).pid, signal.SIGKILL)  # type: ignore[union-attr]
    sandbox.down(host.name)
    assert traces(host) == []


def test_an_owner_that_was_never_written_down_is_found(machine: Machine) -> None:
    host = machine("lost")
    record = Path("/var/lib/deploykit-sandbox/hosts") / host.name / "host.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "pid": 0, "started": 0}))
    found = sandbox.find(host.name)
    assert found is not None and not found.running and processes(host.name)
    sandbox.down(host.name)
    assert traces(host) == []


def test_a_reused_pid_is_not_the_machine(machine: Machine) -> None:
    host = machine("reused")
    os.kill(host.pid, signal.SIGKILL)
    record = Path("/var/lib/deploykit-sandbox/hosts") / host.name / "host.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "pid": os.getpid()}))
    found = sandbox.find(host.name)
    assert found is not None and not found.running
    sandbox.down(host.name)  # and this process lives on


def test_half_made_machines_are_made_anew(machine: Machine) -> None:
    half = Path("/var/lib/deploykit-sandbox/hosts") / unique("half")
    (half / "disk").mkdir(parents=True)
    (half / "host.json").write_text('{"name": ')
    assert sandbox.find(half.name) is None
    assert machine("half").running


def test_a_disk_can_be_filled(machine: Machine) -> None:
    host = machine("full", disk_mb=64)
    full = sandbox.run(host.name, "dd", "if=/dev/zero", "of=/srv/big", "bs=1M", "count=100", check=False)
    assert b"No space left on device" in full.stderr
    said(host.name, "rm", "/srv/big")
    said(host.name, "dd", "if=/dev/zero", "of=/srv/small", "bs=1M", "count=10")


def test_memory_can_be_limited(machine: Machine) -> None:
    host = machine("small", memory_mb=200)
    eats = "b = bytearray(400 * 1024 * 1024); print(len(b))"
    assert sandbox.run(host.name, "python3", "-c", eats, check=False).returncode != 0
    assert said(host.name, "python3", "-c", eats.replace("400", "20")) == str(20 * 1024 * 1024)


def test_machines_reach_one_another(machine: Machine) -> None:
    with ThreadPoolExecutor() as pool:
        one, other = pool.map(machine, ("one", "other"))
    assert one.address != other.address
    assert "1 received" in said(one.name, "ping", "-c1", "-W2", other.address)
    greeting = "import socket; print(socket.create_connection(('%s', 22), 5).recv(4).decode())"
    assert said(other.name, "python3", "-c", greeting % one.address) == "SSH-"


#: A server that answers each after two seconds.
LATE = """
import socket, time
with socket.create_server(("", 7)) as server:
    while True:
        visitor = server.accept()[0]
        time.sleep(2)
        visitor.sendall(b"later")
        visitor.close()
"""


def answers(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=20) as visitor:
            return visitor.recv(100) != b""
    except ConnectionRefusedError:
        return False


def test_a_machine_that_goes_leaves_the_connections_of_others_alone(machine: Machine) -> None:
    """What happens where the one that goes had the lowest hardware address: here a cable with such a one is pulled."""
    host = machine()
    cable, address = "dktest0", "02:00:00:00:00:01"
    link = ("ip", "link")
    subprocess.run([*link, "add", cable, "address", address, "type", "veth", "peer", "name", "dktest1"], check=True)
    try:
        subprocess.run([*link, "set", cable, "master", "dk0"], check=True)
        said(host.name, "sh", "-c", f"python3 -c {shlex.quote(LATE)} >/dev/null 2>&1 &")
        assert eventually(lambda: answers(host.address, 7))
        with socket.create_connection((host.address, 7), timeout=20) as waiting:
            subprocess.run([*link, "delete", cable], check=True)
            assert waiting.recv(100) == b"later"
    finally:
        subprocess.run([*link, "delete", cable], capture_output=True, check=False)


def test_two_ups_at_once_make_one_machine(machine: Machine) -> None:
    with ThreadPoolExecutor() as pool:
        one, other = pool.map(machine, ("same", "same"))
    assert one == other


@pytest.mark.parametrize(
    "name",
    ["", "../x", "a;b", "A", "1a", "-a", "a b", "a/b", "a" * 22, "a\n", "ä", ".", "$(id)"],
)
def test_hostile_names_are_refused(name: str) -> None:
    assert sandbox.find(name) is None
    for act in (sandbox.up, sandbox.down, sandbox.reset, sandbox.stop, sandbox.start, sandbox.reboot):
        with pytest.raises(SandboxError, match="cannot be a sandbox's name"):
            act(name)
    with pytest.raises(SandboxError, match="cannot be a sandbox's name"):
        sandbox.run(name, "true")


def test_absent_sandboxes(prepared: None) -> None:
    name = unique("none")
    assert sandbox.find(name) is None
    sandbox.down(name)
    for act in (sandbox.reset, sandbox.stop, sandbox.start, sandbox.reboot):
        with pytest.raises(SandboxError, match="no such sandbox"):
            act(name)


def test_find_is_cheap_and_needs_no_root(machine: Machine) -> None:
    host = machine()
    began = time.monotonic()
    for _ in range(100):
        sandbox.find(host.name)
    assert (time.monotonic() - began) / 100 < 0.005
    code = f"from deploykit import sandbox; print(sandbox.find({host.name!r}).host_key)"
    stranger = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", code],
        cwd=Path(__file__).parents[2], capture_output=True, text=True,
    )  # fmt: skip
    assert stranger.stdout.strip() == host.host_key, stranger.stderr
