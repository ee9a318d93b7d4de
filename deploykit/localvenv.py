"""A virtualenv on the developer's own machine, with what a host would install: by uv where it is there, else by pip."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from deploykit.agent import installing
from deploykit.agent.deployment import Venv
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
        """As the agent does it on a host (agent/installing.py), without its caches and users."""
        kind, python = self.want.kind, self.app.python

        def call(
            *words: str, stdin: str = "", quiet: bool = False, env: Mapping[str, str] | None = None, at: str = ""
        ) -> str:
            return self.run([uv, *words], stdin=stdin, env=env, folder=self.top / at)

        def tool(packages: Sequence[str], *words: str, folder: str, env: Mapping[str, str]) -> str:
            first, *others = packages
            more = [word for each in others for word in ("--with", each)]
            mine = {name: value for name, value in self.env.items() if "VIRTUAL_ENV" not in name and name[:2] != "UV"}
            return call("tool", "run", "--quiet", "--from", first, *more, *words, env={**mine, **env}, at=folder)

        seed = ("--seed",) if kind == "commands" else ()
        call("venv", "--quiet", "--clear", *seed, "--python", python.version or sys.executable, str(self.venv))
        locks = ""
        # Of a deployment no more is asked than what the virtualenv is made from.
        like = types.SimpleNamespace(venv=self.want)
        if kind == "commands":
            self.commands()
        elif kind == "uv":
            chosen = [] if "dev" in python.groups else ["--no-dev"]
            chosen += [word for each in python.extras for word in ("--extra", each)]
            chosen += [word for each in python.groups for word in ("--group", each)]
            project = str((self.top / self.want.files[0]).parent)
            call("sync", "--quiet", "--frozen", *chosen, "--no-install-project", "--project", project)
        elif kind in _LOCKS:
            maker = types.SimpleNamespace(tool=tool, top=self.top)
            locks = installing.locked(like, maker)  # type: ignore[arg-type]
        index = ["--index-url", python.index] if python.index else []
        index += [word for each in python.extra_indexes for word in ("--extra-index-url", each)]
        words = [*installing.asked(like), *(("-r", "-") if locks else ()), *_separate(python.packages)]  # type: ignore[arg-type]
        if words:
            call("pip", "install", "--quiet", "--python", self.python, *index, *words, stdin=locks)

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
        words += _separate(python.packages)
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
        for command in self.app.python.install:
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


def _separate(requirements: Sequence[str]) -> list[str]:
    return [word for each in requirements for word in (each.split(" ", 1) if each.startswith("-e ") else (each,))]
