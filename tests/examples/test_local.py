"""`fab local` on this machine: a real virtualenv, a real runserver, asked over HTTP."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_examples import EXAMPLES, KEPT


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("local")
    shutil.copytree(EXAMPLES / "reader", folder / "reader", ignore=shutil.ignore_patterns("__pycache__", "db.sqlite3*"))
    (folder / "fabfile.py").write_text("from deploykit.tasks import *\n")
    (folder / "deploykit.toml").write_text(
        '[hosts.web1]\n[apps.reader]\nsource = "reader"\ndomains = ["reader.example"]\ndatabase = "sqlite"\n'
        "static = false\n[apps.reader.env]\nWORDS = \"a 'b' $HOME ${app.name}\"\n"
    )
    yield folder


def started(project: Path, *arguments: str) -> subprocess.Popen[str]:
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    kept |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_"))}
    env = {**kept, "PYTHONPATH": str(EXAMPLES.parent), "XDG_CACHE_HOME": str(project / "cache")}
    return subprocess.Popen(
        [sys.executable, "-m", "fabric", "local", *arguments],
        cwd=project, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def said(project: Path, *arguments: str) -> tuple[int, str]:
    child = started(project, *arguments)
    output, _ = child.communicate(timeout=300)
    return child.returncode, output


def test_it_serves_the_app(project: Path) -> None:
    child = started(project)
    assert child.stdout is not None
    lines = []
    for line in child.stdout:
        lines.append(line)
        if "Quit the server" in line:
            break
    try:
        found = re.search(r"^(http://127\.0\.0\.1:\d+/) \(Ctrl-C ends it\)$", "".join(lines), re.MULTILINE)
        assert found, "".join(lines)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        page = opener.open(found[1], timeout=20).read().decode()
        assert "<title>Reader</title>" in page
        sheet = re.search(r'href="(/static/[^"]+\.css)"', page)
        assert sheet and opener.open(found[1].rstrip("/") + sheet[1], timeout=20).status == 200
    finally:
        os.killpg(child.pid, signal.SIGINT)  # Ctrl-C, as a terminal sends it
        rest = child.communicate(timeout=30)[0]
    assert child.returncode == 0 and "Traceback" not in rest, rest
    own = project / ".deploykit/local/reader"
    assert (own / "data/db.sqlite3").stat().st_size > 0
    assert stat.S_IMODE((own / "secrets.json").stat().st_mode) == 0o600
    assert (project / ".deploykit/.gitignore").read_text() == "*\n"
    assert not (project / "reader/db.sqlite3").exists()


def test_commands_run_in_its_environment(project: Path) -> None:
    began = time.monotonic()
    status, output = said(project, "--cmd", 'python manage.py migrate --check && echo "$WORDS" && exit 7')
    assert (status, output.splitlines()[-1]) == (7, "a 'b' $HOME reader"), output
    assert "virtualenv" not in output and time.monotonic() - began < 20, "nothing is made twice"
    status, output = said(project, "--cmd", "python -c 'import sys; print(sys.prefix)'")
    assert (status, output.splitlines()[-1]) == (0, str(project / ".deploykit/local/reader/venv")), output
    status, output = said(project, "--app", "raeder")
    assert status == 1 and "did you mean: reader" in output
