"""What a sandbox boots from: a distribution as a cheap cloud VM has it, and layers of packages on top.

Images are folders under CACHE, each named by a hash of what it was made from, each built once: under a
file lock, in a folder of another name that is renamed when it is complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from deploykit.agent.dataclass import dataclass

from . import outer, store
from .errors import SandboxError
from .outer import Progress, call, codename, silent

CACHE = Path("/var/cache/deploykit-sandbox")

# Whatever is mounted in there is gone when the process is, however it ends.
_PRIVATE = ("unshare", "--mount", "--propagation", "private", "--")

# What Debian's and Ubuntu's own cloud images have and a deployment may rely on; no curl, git or nginx.
_PACKAGES = (
    "apt-utils",
    "ca-certificates",
    "dbus",
    "gnupg",
    "hostname",
    "iproute2",
    "iputils-ping",
    "less",
    "libpam-systemd",
    "locales",
    "netbase",
    "openssh-server",
    "procps",
    "python3",
    "sudo",
    "systemd",
    "systemd-sysv",
    "tzdata",
)

# user name -> uid; each gets the sandbox key. The differences are in _SETUP.
USERS = {"root": 0, "deploy": 1000, "limited": 1001, "asker": 1002}

# The timers are masked because they take apt's lock at a moment of their own choosing; wait-online because
# it may hold the boot for two minutes. Ubuntu starts sshd by a socket, Debian by a service.
_SETUP = """\
set -eu
echo 'LANG=C.UTF-8' > /etc/default/locale
for user in deploy:1000 limited:1001 asker:1002; do
    useradd --create-home --shell /bin/bash --uid "${user#*:}" "${user%:*}"
done
echo 'deploy ALL=(ALL:ALL) NOPASSWD:ALL' > /etc/sudoers.d/90-deploy
chmod 0440 /etc/sudoers.d/90-deploy
usermod --append --groups sudo asker
echo 'asker:asker' | chpasswd
rm -f /etc/ssh/ssh_host_*
systemctl enable systemd-networkd.service
systemctl enable ssh.service 2>/dev/null || true
systemctl mask apt-daily.timer apt-daily-upgrade.timer systemd-networkd-wait-online.service \\
    console-getty.service systemd-firstboot.service
: > /etc/machine-id
"""

# A non-booted container must not start the daemons that apt installs (deb-policy: 101 is "forbidden").
_INSTALL = """\
set -eu
printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d
chmod 0755 /usr/sbin/policy-rc.d
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -q -y --no-install-recommends -o Dpkg::Options::=--force-unsafe-io install "$@"
apt-get clean
rm -f /usr/sbin/policy-rc.d
"""

_IN_LAYER = """\
set -eu
lower=$1 upper=$2 work=$3 merged=$4; shift 4
mount -t overlay deploykit-image -o "lowerdir=$lower,upperdir=$upper,workdir=$work,volatile" "$merged"
exec systemd-nspawn --quiet --register=no --keep-unit --settings=no -D "$merged" --machine=dkbuild \\
    --resolv-conf=replace-host --timezone=off --link-journal=no --pipe "$@"
"""
_SUITE = re.compile(r"[a-z]{2,20}")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")


@dataclass(frozen=True)
class Image:
    """A distribution's release ("bookworm", "trixie", "noble") and apt packages on top of a bare VM.

    The empty suite stands for this machine's own release if it is one we know, else bookworm.
    """

    suite: str = ""
    packages: tuple[str, ...] = ()

    def resolved(self) -> Image:
        """With its suite named. SandboxError for a suite or package that cannot be a name."""
        suite = self.suite or (codename() if codename() in _KNOWN else "bookworm")
        for pattern, word in [(_SUITE, suite), *((_PACKAGE, package) for package in self.packages)]:
            if not pattern.fullmatch(word):
                raise SandboxError(f"{word!r} is no suite or package name", "sandbox image", "Correct it.")
        return Image(suite, tuple(sorted(set(self.packages))))

    @property
    def label(self) -> str:
        """The suite, and the layer's hash if it has one: `bookworm+3fa94c21`."""
        return f"{self.suite}+{_digest(*self.packages)}" if self.packages else self.suite


_UBUNTU = ("jammy", "noble")
_KNOWN = ("bookworm", "trixie", *_UBUNTU)
BASE = Image()


def built(image: Image, progress: Progress = silent) -> tuple[Path, ...]:
    """The folders `image` is made of, uppermost first, built now if they are not there yet."""
    image = image.resolved()
    CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    base = CACHE / f"{image.suite}-{_digest(image.suite, *_PACKAGES, _SETUP)}"
    _build_once(base, lambda part: _bootstrap(image.suite, part, progress), progress)
    if not image.packages:
        return (base / "root",)
    layer = CACHE / f"{base.name}+{_digest(*image.packages, _INSTALL)}"
    _build_once(layer, lambda part: _install(image.packages, base, part, progress), progress)
    return (layer / "root", base / "root")


def _build_once(target: Path, build: Callable[[Path], None], progress: Progress) -> None:
    if target.is_dir():
        return
    with store.locked_file(CACHE / f"{target.name}.lock"):
        if target.is_dir():
            return  # the process that held the lock has built it
        part = CACHE / f"{target.name}.part"
        if part.exists():  # of a build that was killed; its mounts went with its mount namespace
            shutil.rmtree(part)
        part.mkdir(mode=0o711)  # apt downloads as a user of its own, who has to get in
        try:
            build(part)
            part.chmod(0o700)  # setuid programs that nobody updates are not for this machine's users
            part.rename(target)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise


def _bootstrap(suite: str, part: Path, progress: Progress) -> None:
    progress(f"building the {suite} image (about half a minute, once)")
    root = part / "root"
    components = "main,universe" if suite in _UBUNTU else "main"
    call(
        [
            *_PRIVATE, "mmdebstrap", "--mode=root", "--variant=minbase", "--skip=cleanup/apt/lists",
            f"--components={components}", f"--include={','.join(_PACKAGES)}", suite, root,
        ],
        f"image {suite}",
        "Check that this machine reaches its Debian mirror, and that the release's archive keyring is installed.",
        progress=outer.only("I: ", progress),
    )  # fmt: skip
    todo = "This is a fault in deploykit: please report it with this text."
    call([*_PRIVATE, "chroot", root, "sh", "-s"], f"image {suite}", todo, stdin=_SETUP.encode())
    (root / "etc/apt/apt.conf.d/90outer").write_text(_apt_settings(), encoding="utf-8")
    root.chmod(0o755)


def _install(packages: tuple[str, ...], base: Path, part: Path, progress: Progress) -> None:
    progress(f"installing {', '.join(packages)} into an image (once)")
    folders = [part / name for name in ("root", "work", "merged")]
    for folder in folders:
        folder.mkdir(mode=0o755)
    call(
        [*_PRIVATE, "sh", "-c", _IN_LAYER, "sh", base / "root", *folders, "sh", "-c", _INSTALL, "sh", *packages],
        "sandbox image",
        "Check the packages' names, and that this machine reaches its Debian mirror.",
        progress=outer.only("Setting up ", progress),
    )
    for folder in folders[1:]:
        shutil.rmtree(folder)
    with contextlib.suppress(OSError):
        outer.propagated("dkbuild").rmdir()


def _apt_settings() -> str:
    """Those of this machine's apt settings without which its mirror cannot be used."""
    dump = call(["apt-config", "dump"], "apt-config dump", "Repair this machine's apt configuration.")
    wanted = ("Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::Check-Valid-Until", "Acquire::Check-Date")
    kept = [line for line in dump.splitlines() if line.startswith(wanted)]
    return "".join(f"{line}\n" for line in ["# As on the machine this sandbox runs on.", *kept])


def _digest(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:8]
