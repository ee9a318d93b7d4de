"""The agent's archive: equal sources make an equal one, and it needs nothing but a bare Python."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from deploykit import bundle as bundling
from deploykit.bundle import bundle

RECIPE = "from deploykit.agent.resources import File\ndef recipe(host, facts, render):\n    yield File('/etc/x', '')\n"


def names(data: bytes) -> list[str]:
    return zipfile.ZipFile(io.BytesIO(data)).namelist()


def test_equal_sources_make_an_equal_archive(tmp_path: Path) -> None:
    first, second = bundle(tmp_path), bundle(tmp_path / "elsewhere")
    assert (first.sha, first.data) == (second.sha, second.data)
    assert len(first.sha) == 32 and set(first.sha) <= set("0123456789abcdef")
    found = names(first.data)
    assert found == sorted(found)
    assert all(name.endswith(".py") for name in found)
    assert {"__main__.py", "deploykit/agent/serve.py", "deploykit/recipes/nginx.py"} <= set(found)


def test_only_what_the_host_needs_travels(tmp_path: Path) -> None:
    found = names(bundle(tmp_path).data)
    inside = ("deploykit/model/", "deploykit/agent/", "deploykit/recipes/")
    outside = [name for name in found if not name.startswith(inside)]
    assert outside == ["__main__.py", "deploykit/__init__.py"]
    assert len(bundle(tmp_path).data) < 230_000


def test_every_change_of_a_source_renames_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "deploykit"
    ignore = shutil.ignore_patterns("__pycache__")
    for part in ("model", "agent", "recipes"):
        shutil.copytree(bundling.PACKAGE / part, copy / part, ignore=ignore)
    shutil.copy(bundling.PACKAGE / "__init__.py", copy)
    plain = bundle(tmp_path)
    monkeypatch.setattr(bundling, "PACKAGE", copy)
    assert bundle(tmp_path) == plain, "where it is does not count"
    for place in copy.rglob("*.py"):
        os.utime(place, (1, 1))
    assert bundle(tmp_path) == plain, "nor when it was written"
    (copy / "recipes/nginx.py").write_text((copy / "recipes/nginx.py").read_text() + "\n")
    changed = bundle(tmp_path)
    assert changed.sha != plain.sha
    (copy / "agent/new.py").write_text("")
    assert bundle(tmp_path).sha not in (plain.sha, changed.sha)


def test_the_projects_recipes_travel_too(tmp_path: Path) -> None:
    plain = bundle(tmp_path)
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "blog.py").write_text(RECIPE)
    (folder / "notes.txt").write_text("not this")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__/old.py").write_text("")
    mine = bundle(tmp_path)
    assert mine.sha != plain.sha
    assert sorted(set(names(mine.data)) - set(names(plain.data))) == ["recipes/__init__.py", "recipes/blog.py"]
    (folder / "__init__.py").write_text("OWN = 1\n")
    assert zipfile.ZipFile(io.BytesIO(bundle(tmp_path).data)).read("recipes/__init__.py") == b"OWN = 1\n"


def test_deploykits_own_folder_is_no_users_project() -> None:
    repository = bundling.PACKAGE.resolve().parent
    assert bundle(repository) == bundle(Path("/nonexistent"))


PROBE = """
import json, sys
place, before = sys.argv[1], set(sys.modules)
sys.path.insert(0, place)
import importlib, pathlib
for path in sorted(pathlib.Path(place).rglob("*.py")):
    name = str(path.relative_to(place).with_suffix("")).replace("/", ".").removesuffix(".__init__")
    if not name.endswith("__main__"):
        importlib.import_module(name)
top = {each.partition(".")[0] for each in set(sys.modules) - before}
print(json.dumps(sorted(top - set(sys.stdlib_module_names) - {"__main__"})))
"""


@pytest.mark.parametrize("python", [sys.executable, "/usr/bin/python3"])
def test_every_module_imports_in_a_bare_python(tmp_path: Path, python: str) -> None:
    if subprocess.run([python, "-c", "import sys; sys.exit(sys.version_info < (3, 10))"], check=False).returncode:
        pytest.skip(f"{python} is older than deploykit's oldest host")
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/blog.py").write_text(RECIPE)
    place = tmp_path / "agent"
    zipfile.ZipFile(io.BytesIO(bundle(tmp_path).data)).extractall(place)
    done = subprocess.run([python, "-IS", "-c", PROBE, str(place)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["deploykit", "recipes"]


def test_it_runs_from_its_folder(tmp_path: Path) -> None:
    zipfile.ZipFile(io.BytesIO(bundle(tmp_path).data)).extractall(tmp_path / "agent")
    done = subprocess.run(
        [sys.executable, "-IS", str(tmp_path / "agent")],
        input='{"operation": "facts"}\n',
        capture_output=True,
        text=True,
        check=True,
    )
    event = json.loads(done.stdout)
    assert event["event"] == "facts" and event["facts"]["processors"] >= 1


LOOK = """
import json, sys
sys.path.insert(0, sys.argv[1])
import contextlib, dataclasses, pathlib, select, shlex, socket, subprocess, threading, typing, xml.parsers.expat
before = set(sys.modules)  # what one Python has of its own, another may not
import deploykit.agent.serve, deploykit.recipes.postgres
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_who_only_looks_loads_little(tmp_path: Path) -> None:
    """On a host with nothing to do, loading is most of what the agent does."""
    zipfile.ZipFile(io.BytesIO(bundle(tmp_path).data)).extractall(tmp_path / "agent")
    argv = [sys.executable, "-IS", "-c", LOOK, str(tmp_path / "agent")]
    loaded = set(json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout))
    assert "deploykit.agent.deployment" in loaded
    heavy = {
        "concurrent.futures",
        "difflib",
        "hashlib",
        "http.client",
        "logging",
        "secrets",
        "shutil",
        "ssl",
        "traceback",
    }
    ours = {f"deploykit.agent.{name}" for name in ("applying", "release", "slots", "transaction", "visits")}
    assert loaded & (heavy | ours) == set()
