"""The packages people install: built from a clean copy, complete, and at work in a virtualenv of their own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist; the wheel is built from the sdist, as installers do it."""
    pytest.importorskip("build")
    clean = tmp_path_factory.mktemp("clean") / "deploykit"
    clean.mkdir()
    for name in ("deploykit", "recipes", "templates"):
        shutil.copytree(
            REPOSITORY / name, clean / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
        )
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", ".gitignore"):
        if (REPOSITORY / name).exists():
            shutil.copy(REPOSITORY / name, clean / name)
    out = tmp_path_factory.mktemp("dist")
    here = subprocess.run([sys.executable, "-c", "import hatchling"], capture_output=True, check=False).returncode == 0
    isolation = ["--no-isolation"] if here else []
    done = subprocess.run(
        [sys.executable, "-m", "build", *isolation, "--outdir", str(out), str(clean)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def python(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtualenv with the wheel in it; the dependencies are borrowed from the one the tests run in."""
    place = tmp_path_factory.mktemp("venv")
    venv.create(place, with_pip=False, symlinks=True)
    program = place / "bin/python"
    (wheel,) = built.glob("*.whl")
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(program), "install", "--quiet", "--no-deps", str(wheel)],
        check=True,
        capture_output=True,
    )
    (site,) = place.glob("lib/python3*/site-packages")
    borrowed = {path for path in sys.path if path.endswith("site-packages")}
    (site / "borrowed.pth").write_text("".join(f"{path}\n" for path in borrowed))  # after what is installed here
    return program


def run(python: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        env={"PATH": f"{python.parent}:/usr/bin:/bin", "HOME": str(cwd)},
    )


def files(folder: str) -> set[str]:
    top = REPOSITORY / folder
    return {
        f"{folder}/{path.relative_to(top).as_posix()}"
        for path in top.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_all_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"deploykit/{name}" for name in files("recipes") | files("templates")} <= names
    assert "deploykit/py.typed" in names
    outside = {name.partition("/")[0] for name in names}
    assert [name for name in outside if name != "deploykit" and not name.endswith(".dist-info")] == []
    assert not [name for name in names if name.endswith((".pyc", ".pth"))]


def test_the_sdist_can_build_it_again(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"deploykit/{name}" for name in files("recipes") | files("templates")} <= names
    assert {"pyproject.toml", "README.md", "LICENSE"} <= names
    assert not [name for name in names if name.startswith(("tests", "examples", ".venv"))]


IMPORTS = """
import importlib, pathlib, pkgutil, sys
import deploykit, deploykit.recipes
top = pathlib.Path(deploykit.__file__).parent
assert sys.prefix in str(top), top
names = [each.name for each in pkgutil.walk_packages(deploykit.__path__, "deploykit.")]
names = [name for name in names if not name.endswith("__main__")]
for name in names:
    module = importlib.import_module(name)
    assert str(top) in module.__file__, module.__file__
from deploykit.rendering import OURS
import jinja2
environment = jinja2.Environment(loader=jinja2.FileSystemLoader(OURS))
templates = environment.list_templates()
for name in templates:
    environment.get_template(name)
print(len([name for name in names if name.startswith("deploykit.recipes.")]), len(templates))
"""


def test_every_module_is_imported_and_every_template_read(python: Path, tmp_path: Path) -> None:
    done = run(python, "-c", IMPORTS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    modules = len([name for name in files("recipes") if not name.endswith("__init__.py")])
    assert done.stdout.split() == [str(modules), str(len(files("templates")))]


def test_the_program_runs(python: Path, tmp_path: Path) -> None:
    done = run(python.with_name("deploykit"), "--list", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"deploy", "plan", "status", "add-app", "init", "secrets", "sandbox"} <= set(done.stdout.split())
    assert run(python.with_name("deploykit"), "--version", cwd=tmp_path).stdout.startswith("deploykit 0.")


def test_it_makes_a_manifest_and_the_agent(python: Path, tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/own.py").write_text(
        "from deploykit.agent.resources import File\n"
        "def recipe(host, facts, render):\n    yield File('/etc/own', render('nginx/snippets/proxy.conf.j2'))\n"
    )
    program = (
        "from pathlib import Path; from deploykit.manifest import build; from deploykit.bundle import bundle\n"
        "from deploykit.agent.values import Facts, Host\n"
        "facts = Facts('debian', '12', 'bookworm', 'x86_64', 2000, 2, '3.11.2')\n"
        "made = build(Host('web1', recipes=('own',)), facts, Path.cwd())\n"
        "print(made.resources[-1].key, len(bundle(Path.cwd()).data) > 20000)\n"
    )
    done = run(python, "-c", program, cwd=tmp_path)
    assert done.stdout.strip() == "file /etc/own True", done.stderr
