"""Python: uv, which builds the apps' virtualenvs, and the interpreters they ask for."""

from __future__ import annotations

import glob
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import ClassVar

from deploykit.agent.dataclass import dataclass
from deploykit.agent.process import run, tail
from deploykit.agent.resource import Failed, Note, Render, Resource, State
from deploykit.agent.resources import Directory, Package
from deploykit.agent.resources.packages import candidates, install, outdated
from deploykit.agent.values import Facts, Host

ROOT = "/opt/deploykit"
UV = f"{ROOT}/uv/bin/uv"
_WHEELS = "/usr/share/python-wheels"
UV_VERSION = "0.13.9"

#: What uv needs to know wherever it is called: interpreters under our own root, the system's certificates (a company's
#: own authority is only there), and nothing installed on the side.
UV_ENVIRONMENT: dict[str, str] = {
    "UV_PYTHON_INSTALL_DIR": f"{ROOT}/python",
    "UV_PYTHON_DOWNLOADS": "never",
    "UV_SYSTEM_CERTS": "true",
    "UV_NATIVE_TLS": "true",
    "UV_NO_PROGRESS": "1",
    "UV_NO_CONFIG": "1",
}


@dataclass(frozen=True)
class Uv(Resource):
    """uv at one version, from PyPI: the distributions do not have it."""

    ahead: ClassVar[bool] = True

    version: str

    @property
    def key(self) -> str:
        return "uv"

    def wanted(self) -> State:
        return {"version": self.version}

    def observe(self) -> State | None:
        found = glob.glob(f"{ROOT}/uv/uv-*.dist-info")
        if not found or not os.access(UV, os.X_OK):
            return None
        return {"version": os.path.basename(found[0]).removeprefix("uv-").removesuffix(".dist-info")}

    def change(self, observed: State | None) -> None:
        """pip from Debian's wheel, straight into a folder: no virtualenv to make, and half an install never counts."""
        wheels = glob.glob(f"{_WHEELS}/pip-*.whl")
        if not wheels:
            raise Failed("pip's wheel is not on the host", todo="Reinstall the package python3-pip-whl.")
        self._install(sorted(wheels)[-1])

    def prepare(self) -> None:
        """The same with the wheel out of a package that is only unpacked: apt may be at work, and has the locks."""
        if glob.glob(f"{_WHEELS}/pip-*.whl"):
            return  # its turn comes soon enough
        deadline = time.monotonic() + 60
        while outdated() and time.monotonic() < deadline:  # apt is about to fetch new ones
            time.sleep(0.5)
        os.makedirs(ROOT, mode=0o755, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=ROOT) as folder:
            os.chmod(folder, 0o755)  # apt fetches as a user of its own
            run(("apt-get", "-q", "download", "python3-pip-whl"), cwd=folder)
            run(("dpkg-deb", "-x", glob.glob(f"{folder}/*.deb")[0], f"{folder}/unpacked"))
            self._install(glob.glob(f"{folder}/unpacked{_WHEELS}/pip-*.whl")[0])

    def _install(self, wheel: str) -> None:
        new, old = f"{ROOT}/.uv-new", f"{ROOT}/.uv-old"
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)
        pip = ("/usr/bin/python3", f"{wheel}/pip")
        done = run(
            (*pip, "install", "-q", "--no-deps", "--no-cache-dir", "--target", new, f"uv=={self.version}"), check=False
        )
        if done.returncode != 0:
            raise Failed(
                f"uv {self.version} could not be installed from PyPI",
                tail(done.stderr),
                "Check the host's way out to the internet, or its own index in /etc/pip.conf.",
            )
        if os.path.lexists(f"{ROOT}/uv"):
            os.rename(f"{ROOT}/uv", old)
        os.rename(new, f"{ROOT}/uv")
        shutil.rmtree(old, ignore_errors=True)

    def remove(self) -> None:
        shutil.rmtree(f"{ROOT}/uv", ignore_errors=True)


@dataclass(frozen=True)
class Interpreter(Resource):
    """A Python that is not the system's own: from the distribution where it has that one, else from uv's builds."""

    version: str

    @property
    def key(self) -> str:
        return f"python {self.version}"

    def wanted(self) -> State:
        return {"installed": True}

    def observe(self) -> State | None:
        return {"installed": True} if interpreter(self.version) else None

    def change(self, observed: State | None) -> None:
        package = f"python{self.version}"
        if re.fullmatch(r"3\.\d+", self.version) and package in candidates([package]):
            install([package])
            return
        env = {**UV_ENVIRONMENT, "UV_PYTHON_DOWNLOADS": "manual"}
        done = run((UV, "python", "install", "--no-bin", self.version), env=env, check=False)
        if done.returncode != 0:
            names = candidates([f"python3.{minor}" for minor in range(8, 20)])
            have = ", ".join(name.removeprefix("python") for name in names) or "none"
            raise Failed(
                f"Python {self.version} cannot be had on this host",
                f"The distribution has: {have}. From uv's own builds:\n{tail(done.stderr, 5)}",
                "Ask for one of those, leave `python` out for the system's own, or let the host reach github.com.",
            )

    def remove(self) -> None:
        """Only uv's: a package may serve others."""
        for folder in glob.glob(f"{ROOT}/python/cpython-{glob.escape(self.version)}[.-]*"):
            shutil.rmtree(folder, ignore_errors=True)


def interpreter(version: str) -> str | None:
    """The path of a Python on this host ("3.12", "3.12.4"; "": the system's), or None."""
    if version == "":
        return "/usr/bin/python3"
    system = f"/usr/bin/python{version}"
    if os.access(system, os.X_OK):
        return system
    minor = ".".join(version.split(".")[:2])
    found = glob.glob(f"{ROOT}/python/cpython-{glob.escape(version)}[.-]*/bin/python{minor}")
    return max(found, key=_numbers) if found else None


def _numbers(path: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", path.split("/")[4]))


def recipe(host: Host, facts: Facts, render: Render) -> Iterator[Resource]:
    """uv, and every interpreter that an app asks for."""
    if not host.apps:
        return
    yield Package("python3")
    yield Package("python3-pip-whl")  # pip as one file; brings nothing else
    yield Directory(ROOT)
    yield Uv(UV_VERSION)
    for version in sorted({app.python.version for app in host.apps} - {"", facts.python}):
        yield Interpreter(version)


def notes(host: Host, facts: Facts) -> Iterator[Note]:
    """Files of the sources that name another Python than the one that is used: hints, and no requirements."""
    for app in host.apps:
        file, wanted = app.python.hint
        used = app.python.version or facts.python
        if wanted and wanted.split(".")[:2] != used.split(".")[:2]:
            minor = ".".join(wanted.split(".")[:2])
            yield Note(f'{file} of {app.name} says {wanted}, and {used} is used; python = "{minor}" would follow it')
