"""What fills a virtualenv, run by the app's user in the release's code: uv, exporters of locks, the user's commands.

Each has the app's own environment, as the app itself will: settings of an index or of a compiler in `env` hold here.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Mapping, Sequence

from deploykit.agent import app_command
from deploykit.agent.deployment import Deployment
from deploykit.agent.process import tail
from deploykit.agent.resource import Failed

Tell = Callable[[str], None]

#: The programs that understand the other lock files, each in an environment of its own that uv makes and keeps: the
#: virtualenv stays the app's, and what a format means stays its own makers' business. Bounds and no pins, for uv takes
#: the newest that the host's python3 can run; Poetry 2 reads the locks of Poetry 1.
#: https://github.com/python-poetry/poetry-plugin-export, https://pipenv.pypa.io/en/latest/commands.html#requirements
_POETRY = ("poetry>=2,<3", "poetry-plugin-export>=1.9")
_PIPENV = ("pipenv>=2023.10",)

#: What they say of the index when it is the usual one. It goes without saying, and uv takes no second word on it.
_USUAL = re.compile(r"^(?:-i|--index-url) https://pypi\.org/simple/?\n", re.MULTILINE)

#: Of no use to a program beside the app's own virtualenv, or in its way.
_NOT_FOR_TOOLS = (
    *("VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "PYTHONPATH", "DJANGO_SETTINGS_MODULE"),
    *("UV_LINK_MODE", "UV_COMPILE_BYTECODE"),  # it stays in the cache, and runs once for each change of a lock
)


class Uv:
    """uv as the app's user, in the release's code."""

    def __init__(self, deployment: Deployment, tell: Tell) -> None:
        self._deployment = deployment
        self.top = deployment.folder / "code"
        venv, want = str(deployment.virtualenv), deployment.venv
        given = deployment.environment("a", make=True)
        self._env = {
            **given,
            **dict(want.environment),
            "HOME": f"/srv/{deployment.app}/home",
            "PATH": f"{given.get('PATH', '/usr/local/bin:/usr/bin:/bin')}:{os.path.dirname(want.uv)}",
            "VIRTUAL_ENV": venv,
            "UV_PROJECT_ENVIRONMENT": venv,
            "UV_LINK_MODE": "copy",  # the cache is the app's, the virtualenv becomes root's
            "UV_COMPILE_BYTECODE": "1",  # the app cannot write there later
        }
        if want.kind == "commands":  # else a .python-version would have another Python made, or asked for
            self._env["UV_PYTHON"] = f"{venv}/bin/python"
        self._masked = deployment.mask("a")  # now that all secrets are made
        self._tell: Tell = lambda line: tell(self._masked(line))
        if want.kind in ("pyproject", "uv", "commands"):
            del self._env["UV_NO_CONFIG"]  # [tool.uv] is part of what the project says

    def __call__(self, *arguments: str, stdin: str = "", quiet: bool = False) -> str:
        """What it printed; nothing of it is shown when `quiet`. Raises Failed with its last words."""
        return self._run([self._deployment.venv.uv, *arguments], stdin=stdin, quiet=quiet)

    def shell(self, command: str) -> None:
        """A command of the user's. Raises Failed with its last words."""
        self._tell(f"$ {command}")
        self._run(["/bin/sh", "-ec", command])

    def tool(self, packages: Sequence[str], *words: str, folder: str, env: Mapping[str, str]) -> str:
        """What a program from the index prints, run in a folder of the source. Raises Failed with its last words."""
        first, *others = packages
        more = [word for each in others for word in ("--with", each)]
        # By the system's own python: what the program runs on has nothing to do with what the app runs on.
        argv = [self._deployment.venv.uv, "tool", "run", "--quiet", "--python", "/usr/bin/python3", "--from", first]
        mine = {name: value for name, value in self._env.items() if name not in _NOT_FOR_TOOLS}
        return self._run([*argv, *more, *words], quiet=True, folder=folder, env={**mine, **env})

    @functools.cached_property
    def locked(self) -> str:
        """Every package of a lock file at its version, as a requirements file. Raises Failed, also for a stale lock.

        With the hashes of all files: uv checks those that are given, so what is installed is what was locked.
        """
        want = self._deployment.venv
        folder = os.path.dirname(want.files[-1])
        if want.kind == "uv":
            return self("export", *_EXPORT, *_locked(self._deployment), quiet=True)
        if want.kind == "poetry":
            words = [word for each in want.groups for word in ("--with", each)]
            words += [word for each in want.extras for word in ("--extras", each)]
            # A keyring would wait for a desktop that is not there.
            env = {"PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"}
            export = ("poetry", "export", "--no-interaction", "--no-ansi", "--with-credentials")
            text = self.tool(_POETRY, *export, "--format", "requirements.txt", *words, folder=folder, env=env)
            return _USUAL.sub("", text)
        groups = ("dev-packages" if each in ("dev", "develop") else each for each in want.groups)
        env = {"PIPENV_IGNORE_VIRTUALENVS": "1", "PIPENV_PIPFILE": str(self.top / want.files[0])}
        export = ("pipenv", "requirements", "--hash", "--categories", ",".join(("packages", *groups)))
        text = self.tool(_PIPENV, *export, folder=folder, env=env)
        return re.sub(r" (--hash=)", r" \\\n    \1", _USUAL.sub("", text))  # a line each, as all others write them

    def _run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        quiet: bool = False,
        folder: str = "",
        env: Mapping[str, str] | None = None,
    ) -> str:
        done = app_command.run(
            self._deployment,
            argv,
            env=self._env if env is None else env,
            cwd=str(self.top / folder),
            check=False,
            stdin=stdin,
            output=None if quiet else self._tell,
        )
        if done.returncode != 0:
            raise Failed(
                f"the virtualenv of {self._deployment.app} could not be made",
                self._masked(tail(done.stderr or done.stdout)),
                "correct what is installed (or `python`) and deploy again; the live release is untouched",
            )
        return done.stdout


def asked(deployment: Deployment) -> list[str]:
    """What is asked for, files and options, as arguments of `uv pip install` and, without "-r", of `uv pip compile`.

    Nothing of a lock file's: its packages are `Uv.locked`.
    """
    want = deployment.venv
    words = [word for each in want.constraints for word in ("--constraints", each)]
    if want.kind in ("pyproject", "uv"):
        words += ["--project", _project(deployment)]  # whose [tool.uv] holds
    if want.kind in ("requirements", "pyproject"):
        words += [word for file in want.files for word in ("-r", file)]
    if want.kind == "pyproject":
        words += [word for each in want.extras for word in ("--extra", each)]
        words += [word for each in want.groups for word in ("--group", f"{want.files[0]}:{each}")]
    return words


def fill(deployment: Deployment, uv: Uv) -> None:
    """Makes the app's own virtualenv, for it alone. Raises Failed."""
    venv, want = str(deployment.virtualenv), deployment.venv
    seed = ("--seed",) if want.kind == "commands" else ()  # with pip, which such commands may call
    uv("venv", "--quiet", "--allow-existing", *seed, "--python", want.python, venv)
    pip = ["pip", "install", "--quiet", "--python", f"{venv}/bin/python"]
    locks = ""
    if want.kind == "commands":
        for command in want.install:
            uv.shell(command)
    elif want.kind == "uv":
        uv("sync", "--quiet", "--no-install-project", *_locked(deployment))
        # What is added must leave the locked ones as they are.
        text = uv("export", *_EXPORT, "--no-hashes", *_locked(deployment), quiet=True)
        locks = "".join(f"{line}\n" for line in text.splitlines() if re.match(r"[A-Za-z0-9._-]+==", line))
    elif want.kind in ("poetry", "pipenv"):
        locks = uv.locked
    more = separate(want.extra)
    uv(*pip, *asked(deployment), *(("-r", "-") if locks else ()), *more, stdin=locks)


def separate(requirements: Sequence[str]) -> list[str]:
    """As arguments: "-e ." is an option and its value."""
    return [word for each in requirements for word in (each.split(" ", 1) if each.startswith("-e ") else (each,))]


_EXPORT = ("--quiet", "--no-emit-project", "--no-header", "--no-annotate")


def _project(deployment: Deployment) -> str:
    return str((deployment.folder / "code" / deployment.venv.files[0]).parent)


def _locked(deployment: Deployment) -> list[str]:
    """What of a uv.lock: the extras and groups that are asked for, and no "dev", which uv itself would take.

    With the Python that the virtualenv has: by a .python-version uv would look for another one.
    """
    want = deployment.venv
    words = ["--frozen", "--python", want.python, "--project", _project(deployment)]
    words += [] if "dev" in want.groups else ["--no-dev"]
    words += [word for each in want.extras for word in ("--extra", each)]
    return words + [word for each in want.groups for word in ("--group", each)]
