"""The machines that tests run on: systemd-nspawn machines booted here, or Vagrant's, chosen by `--hosts`.

Either way a pristine machine with sshd, which this machine reaches by an address of its own, and with the same users:
root, deploy (may sudo), asker (may sudo with the password "asker") and limited (may not), each opened by `identity`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from deploykit import cache, sandbox
from deploykit.sandbox import Image

REPOSITORY = Path(__file__).resolve().parents[2]
KINDS = ("nspawn", "vagrant")
WARM = Image(
    packages=(
        "curl",
        "git",
        "libpq5",
        "nginx",
        "postgresql",
        "python3-pip",
        "python3-venv",
        "redis-server",
        "rsync",
        "supervisor",
    )
)
"""A host on which most of what deploykit installs is there already, so that a test waits for no apt."""


@dataclass(frozen=True)
class Machine:
    """A running machine. `table` is its [hosts.NAME] in deploykit.toml, for a user whom `admit` has prepared."""

    name: str
    address: str
    identity: Path
    host_key: str
    table: str

    def run(
        self, *argv: str, stdin: bytes = b"", check: bool = True, user: str = "root", seconds: float | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """One program inside, by the system's own ssh; its words arrive as they are."""
        raise NotImplementedError

    def reboot(self) -> None:
        """Shuts it down, boots it with what is on its disk, and waits until it has booted."""
        raise NotImplementedError

    def admit(self, home: Path) -> None:
        """The user whose home that is has the key that opens it, and knows its host key."""
        ssh = home / ".ssh"
        ssh.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copy(self.identity, ssh / "id_ed25519")
        (ssh / "known_hosts").write_text(f"{self.address} {self.host_key}\n")


def prepare(kind: str) -> None:
    """Everything slow that all machines need, once."""
    if kind == "nspawn":
        sandbox.prepare()
        return
    if not shutil.which("vagrant"):
        raise RuntimeError("vagrant is not installed: `make test-vagrant` installs it, and what its machines need")
    # What Vagrant keeps for a user must be the same for all commands, and tests give each its own HOME.
    os.environ.setdefault("VAGRANT_HOME", str(Path.home() / ".vagrant.d"))


@contextlib.contextmanager
def standing(kind: str, name: str, image: Image, disk_mb: int | None = None) -> Iterator[Machine]:
    """A pristine machine that is thrown away at the end. `disk_mb` (so small a disk) is for nspawn only."""
    if kind == "nspawn":
        try:
            box = sandbox.up(name, image=image, disk_mb=disk_mb)
            yield Nspawn(box.name, box.address, box.identity, box.host_key, f"[hosts.{box.name}]\n")
        finally:
            sandbox.down(name)
    else:
        with vagrantfile(name, image) as folder:
            yield provisioned(folder, name)


@dataclass(frozen=True)
class Nspawn(Machine):
    """A sandbox. deploykit finds the way there by its name alone, whoever asks."""

    def run(
        self, *argv: str, stdin: bytes = b"", check: bool = True, user: str = "root", seconds: float | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        return sandbox.run(self.name, *argv, stdin=stdin, check=check, user=user, seconds=seconds)

    def reboot(self) -> None:
        sandbox.reboot(self.name)


# -- Vagrant --------------------------------------------------------------------------------------

#: Makes the users, opens them to the key on the command line, and prints the host key and all addresses.
_USERS = """\
set -eu
for user in root deploy asker limited; do
    id $user >/dev/null 2>&1 || useradd --create-home --shell /bin/bash $user
    home=$(getent passwd $user | cut -d: -f6)
    install -d -m 700 -o $user -g $user "$home/.ssh"
    echo "$1" >"$home/.ssh/authorized_keys"
    chown $user:$user "$home/.ssh/authorized_keys"
done
echo 'deploy ALL=(ALL:ALL) NOPASSWD:ALL' >/etc/sudoers.d/90-deploy
usermod --append --groups sudo asker
echo asker:asker | chpasswd
cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub
hostname -I
"""
#: Real VMs are the same for all images: the apt packages of a warm one are just not there yet.
_BOXES = {"trixie": "bento/debian-13"}


@dataclass(frozen=True)
class Folder:
    """A copy of the repository's Vagrantfile, so that its machines are nobody else's."""

    path: Path
    env: Mapping[str, str]
    network: str

    def vagrant(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs Vagrant there. Raises RuntimeError with what it said."""
        done = subprocess.run(
            ["vagrant", *words],
            cwd=self.path,
            env={**os.environ, **self.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"vagrant {shlex.join(words)} exited {done.returncode}:\n{done.stdout[-4000:]}")
        return done


@contextlib.contextmanager
def vagrantfile(name: str, image: Image) -> Iterator[Folder]:
    """A folder whose machines are destroyed at the end, with a private network of their own."""
    with contextlib.ExitStack() as ends:
        top = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix=f"deploykit-{name}-")))
        path = top / "vagrant"
        path.mkdir()
        shutil.copy(REPOSITORY / "vagrant/Vagrantfile", path)
        provider = os.environ.get("VAGRANT_DEFAULT_PROVIDER", "docker")
        prefix = ends.enter_context(_network("192.168" if provider == "virtualbox" else "198.19"))
        env = {"VAGRANT_DEFAULT_PROVIDER": provider, "DEPLOYKIT_NETWORK": prefix}
        if provider == "docker":
            env["DEPLOYKIT_IMAGE"] = _image(image)
        elif image.suite:
            env["DEPLOYKIT_BOX"] = _BOXES[image.suite]
        folder = Folder(path, env, prefix)
        ends.callback(folder.vagrant, "destroy", "--force")
        yield folder


@contextlib.contextmanager
def _lock(name: str, wait: bool) -> Iterator[bool]:
    """Whether this process alone holds the lock of that name, among all test runs of this user."""
    folder = cache.FOLDER / "test-locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextlib.contextmanager
def _network(start: str) -> Iterator[str]:
    """The first three numbers of a network that no other test has: the lock ends with the process that holds it."""
    for third in range(57, 64):  # of 192.168.56.0/21, VirtualBox's; the first is for people's own machines
        with _lock(f"network-{start}.{third}", wait=False) as free:
            if free:
                yield f"{start}.{third}"
                return
    raise RuntimeError("seven networks are in use by other tests")


def _image(image: Image) -> str:
    """The docker provider's image for it, built if it is not there yet."""
    suite = image.suite or "bookworm"
    name = Image(suite, image.packages).label.replace("+", "-")
    with _lock("image", wait=True):
        script = REPOSITORY / "vagrant/image.sh"
        words = [script, "docker", suite, ",".join(image.packages), f"deploykit-{name}"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{done.stderr[-4000:]}\n`make test-vagrant` sets everything up")
    return f"deploykit-{name}"


@dataclass(frozen=True)
class Vagrant(Machine):
    """The machine web1 of a Vagrantfile."""

    folder: Folder

    def run(
        self, *argv: str, stdin: bytes = b"", check: bool = True, user: str = "root", seconds: float | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        options = {
            "IdentityFile": self.identity,
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": self.identity.with_name("known_hosts"),
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": "10",
            "ServerAliveInterval": "5",
            "LogLevel": "ERROR",
        }
        words = [word for option, value in options.items() for word in ("-o", f"{option}={value}")]
        done = subprocess.run(
            ["ssh", "-F", "/dev/null", *words, f"{user}@{self.address}", "--", shlex.join(argv)],
            input=stdin, capture_output=True, timeout=seconds, check=False,
        )  # fmt: skip
        if check and done.returncode != 0:
            said = (done.stderr + done.stdout).decode(errors="replace")
            raise RuntimeError(f"{self.name}: `{shlex.join(argv)}` exited {done.returncode}:\n{said[-4000:]}")
        return done

    def reboot(self) -> None:
        self.folder.vagrant("reload", "web1")
        self.booted()

    def booted(self) -> None:
        """Waits until systemd has done what it does at boot."""
        wait = "while state=$(systemctl is-system-running); [ $state = initializing ] || [ $state = starting ]"
        self.run("sh", "-c", f"{wait}; do sleep 0.1; done", check=False, seconds=120)


def provisioned(folder: Folder, name: str) -> Vagrant:
    """`vagrant up`, and the users that tests log in as."""
    folder.vagrant("up", "web1")
    config = folder.path.parent / "ssh-config"
    config.write_text(folder.vagrant("ssh-config", "web1").stdout)
    identity = folder.path.parent / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", identity], check=True)
    public = identity.with_suffix(".pub").read_text().strip()
    done = subprocess.run(
        ["ssh", "-F", config, "web1", f"sudo sh -s -- {shlex.quote(public)}"],
        input=_USERS, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"{name}: its users cannot be made: {done.stderr}")
    key, *addresses = done.stdout.split("\n")
    known = " ".join(addresses).split()
    address = next((each for each in known if each.startswith(f"{folder.network}.")), known[0])
    identity.with_name("known_hosts").write_text(f"{address} {key}\n")
    # By its address, as any other machine: to ask Vagrant at each command is what test_vagrant does, and slow.
    table = f'[hosts.{name}]\naddress = "{address}"\nuser = "deploy"\n'
    found = Vagrant(name, address, identity, key, table, folder)
    found.booted()
    return found
