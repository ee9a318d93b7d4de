"""Every project under `examples/` passes its own tests, in a virtualenv with its own requirements."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tomlkit

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ROOTS = {path.relative_to(EXAMPLES).parts[0]: path.parent for path in sorted(EXAMPLES.glob("**/manage.py"))}
# What the projects read from the environment, left out so that a developer's shell does not matter.
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "PIP_INDEX_URL", "PIP_CERT")
INSTALL_SECONDS, COMMAND_SECONDS = 300, 120


def requirements(project: Path) -> list[str]:
    """The requirements of a project, as pip reads them from its requirements.txt or pyproject.toml."""
    listed = project / "requirements.txt"
    if listed.is_file():
        lines = (line.split("#")[0].strip() for line in listed.read_text().splitlines())
        return [line for line in lines if line]
    table = tomlkit.parse((project / "pyproject.toml").read_text()).unwrap()
    return [str(requirement) for requirement in table["project"]["dependencies"]]


def virtualenv(project: Path) -> Path:
    """A virtualenv with the project's requirements: a cached one where these have not changed."""
    wanted = requirements(project)
    identity = "\n".join([sys.version, sys.executable, *wanted])
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deploykit-tests" / "examples"
    folder = base / f"{project.name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    base.mkdir(parents=True, exist_ok=True)
    # The mark is written last, so what an interrupted run left behind is not taken for finished; the lock
    # keeps two runs at the same time from building in one folder.
    mark = folder / "complete"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not mark.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            run([sys.executable, "-m", "venv", str(folder)], base, INSTALL_SECONDS)
            install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *wanted]
            run([*install, "--disable-pip-version-check"], base, INSTALL_SECONDS)
            mark.write_text("\n".join(wanted) + "\n")
    return folder


def run(command: list[str], folder: Path, seconds: int, **variables: str) -> str:
    """Run a command to its end, failing the test with its output when it fails; answers its output."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    kept |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_"))}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**kept, "PYTHONDONTWRITEBYTECODE": "1", **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, f"{' '.join(command)} exited {done.returncode} in {folder}:\n{done.stdout}"
    return done.stdout


def test_there_are_four() -> None:
    assert set(ROOTS) == {"links", "memories", "postcards", "reader"}


@pytest.mark.parametrize("name", ROOTS)
def test_example(name: str, tmp_path: Path) -> None:
    """Its own tests pass, no migration is missing, and it is fit for production."""
    root = ROOTS[name]
    manage = [str(virtualenv(EXAMPLES / name) / "bin" / "python"), "manage.py"]
    output = run([*manage, "test", "--noinput"], root, COMMAND_SECONDS)
    assert "\nOK" in output and "Ran 0 tests" not in output, output
    key, hosts = "k%#$&\"' " * 8, f"{name}.example,www.{name}.example"
    production = {
        "SECRET_KEY": key,
        "ALLOWED_HOSTS": hosts,
        "DATABASE_URL": f"sqlite:///{tmp_path}/db.sqlite3",
        # What postcards calls these.
        "DJANGO_SECRET_KEY": key,
        "DJANGO_ALLOWED_HOSTS": hosts,
        "SQLITE_PATH": f"{tmp_path}/db.sqlite3",
        "STATIC_ROOT": f"{tmp_path}/static",
        "USE_HTTPS": "1",
    }
    for command in (
        ["makemigrations", "--check", "--dry-run"],
        ["check", "--deploy"],
        ["collectstatic", "--noinput"],
    ):
        run([*manage, *command], root, COMMAND_SECONDS, **production)
    assert list((tmp_path / "static").rglob("*.css"))


@pytest.mark.parametrize("name", ROOTS)
def test_example_knows_nothing_of_deploykit(name: str) -> None:
    """The examples stand for other people's projects: nothing in them is made for this one."""
    for path in sorted((EXAMPLES / name).rglob("*")):
        if path.is_file() and path.suffix in {".py", ".md", ".txt", ".toml", ".html", ".css", ".js", ".svg"}:
            assert "deploykit" not in path.read_text(encoding="utf-8").lower(), path
