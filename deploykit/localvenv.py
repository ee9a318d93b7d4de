"""A virtualenv on the developer's own machine, with what a host would install: by uv where it is there, else by pip."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from deploykit.agent import installing
from deploykit.agent.deployment import Deployment, Venv
from deploykit.agent.values import App
from deploykit.errors import DeploykitError

Tell = Callable[[str], None]

#: What only uv can read.
_LOCKS = ("uv", "poetry", "pipenv")


def made(app: App, want: Venv, top: Path, folder: Path, tell: Tell) -> Path:
    """The virtualenv in `folder`, made anew when what it is made from has changed. `top` is the source's.

    Raises DeploykitError when it cannot be made.
    """
    venv, mark = folder / "venv", folder / "venv.key"
    uv = shutil.which("uv")
    key = f"{app.python.digest} {app.python.version} {'uv' if uv else sys.version}\n"
    if mark.exists() and mark.read_text() == key and (venv / "bin" / "python").exists():
        return venv
    mark.unlink(missing_ok=True)
    tell(f"making the virtualenv with {'uv' if uv else 'venv and pip'}")
    maker = _Maker(app, want, top, venv)
    if uv:
        maker.with_uv(uv)
    else:
        maker.with_pip()
    mark.write_text(key)
    return venv


class _Maker:
    def __init__(self, app: App, want: Venv, top: Path, venv: Path) -> None:
        self.app, self.want, self.top, self.venv = app, want, top, venv
        self.python = str(venv / "bin" / "python")
        self.env = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONHOME"},
            "VIRTUAL_ENV": str(venv),
            "UV_PROJECT_ENVIRONMENT": str(venv),
            "PATH": f"{venv}/bin:{os.environ.get('PATH', os.defpath)}",
        }

    def with_uv(self, uv: str) -> None:
        """As on a host, by the same code."""
        python = self.app.python
        release = self.venv.parent / "release"  # the agent looks for the source in the folder of a release
        release.mkdir(exist_ok=True)
        (release / "code").unlink(missing_ok=True)
        (release / "code").symlink_to(self.top)
        want = replace(self.want, uv=uv, python=python.version or sys.executable, extra=python.packages)
        like = types.SimpleNamespace(app=self.app.name, venv=want, folder=release, virtualenv=self.venv)
        env = {**self.env, "UV_DEFAULT_INDEX": python.index} if python.index else self.env
        if python.extra_indexes:
            env = {**env, "UV_INDEX": " ".join(python.extra_indexes)}
        shutil.rmtree(self.venv, ignore_errors=True)
        deployment = cast(Deployment, like)  # no more is asked of it
        installing.fill(deployment, _Uv(deployment, env, self))

    def with_pip(self) -> None:
        """Without uv: what pip can read by itself."""
        python = self.app.python
        if self.want.kind in _LOCKS:
            raise DeploykitError(
                f"{python.files[-1]} is read by uv", f"[apps.{self.app.name}]", "install uv: pip install uv"
            )
        self.run([self._interpreter(), "-m", "venv", "--clear", str(self.venv)])
        if self.want.kind == "commands":
            self.commands()
        words = [word for each in python.constraints for word in ("--constraint", each)]
        if self.want.kind == "requirements":
            words += [word for each in python.files for word in ("--requirement", each)]
        elif self.want.kind == "pyproject":
            words += self._dependencies()
        words += installing.separate(python.packages)
        index = ["--index-url", python.index] if python.index else []
        index += [word for each in python.extra_indexes for word in ("--extra-index-url", each)]
        if words:
            self.run([self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *index, *words])

    def _interpreter(self) -> str:
        version = self.app.python.version
        if not version or f"{'.'.join(map(str, sys.version_info[:3]))}.".startswith(f"{version}."):
            return sys.executable
        found = shutil.which(f"python{version}")
        if found is None:
            raise DeploykitError(
                f"python{version} is not on this machine", f"[apps.{self.app.name}]", "install it, or uv"
            )
        return found

    def _dependencies(self) -> list[str]:
        """pip installs no dependencies without the project itself, so they are read out."""
        from deploykit.config.toml import parse

        python = self.app.python
        document = parse((self.top / python.files[0]).read_text(), python.files[0])
        about = document.get("project", {})
        found = [str(each) for each in about.get("dependencies", [])]
        for extra in python.extras:
            found += about.get("optional-dependencies", {}).get(extra, [])
        for group in python.groups:
            found += [each for each in document.get("dependency-groups", {}).get(group, []) if isinstance(each, str)]
        return found

    def commands(self) -> None:
        """The user's own commands, with the virtualenv active."""
        for command in self.want.install:
            self.run(["/bin/sh", "-ec", command])

    def run(
        self, words: Sequence[str], *, stdin: str = "", env: Mapping[str, str] | None = None, folder: Path | None = None
    ) -> str:
        """What it printed. Raises DeploykitError with its last words."""
        done = subprocess.run(
            words,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            cwd=folder or self.top,
            env=dict(env or self.env),
        )
        if done.returncode:
            said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:])
            raise DeploykitError("the virtualenv could not be made", f"[apps.{self.app.name}]", said)
        return done.stdout


class _Uv(installing.Uv):
    """uv as the developer, in the source as it lies."""

    def __init__(self, deployment: Deployment, env: Mapping[str, str], maker: _Maker) -> None:
        self._deployment, self._env, self._maker = deployment, dict(env), maker
        self.top = maker.top

    def shell(self, command: str) -> None:
        self._run(["/bin/sh", "-ec", command])

    def _run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        quiet: bool = False,
        folder: str = "",
        env: Mapping[str, str] | None = None,
    ) -> str:
        return self._maker.run(argv, stdin=stdin, env=self._env if env is None else env, folder=self.top / folder)
