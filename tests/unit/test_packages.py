"""What decides an app's virtualenv: another digest for all that changes its contents, the same for all else."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from deploykit.agent.values import Python
from deploykit.config import packages, requirements
from deploykit.config.interpreters import hinted, required
from deploykit.config.project import Installed
from deploykit.errors import DeploykitError

PROJECT = """\
[project]
name = "x"
dependencies = ["django"]
[project.optional-dependencies]
mail = ["anymail"]
[dependency-groups]
prod = ["gevent", { include-group = "more" }]
more = ["x @ https://example.org/x.whl"]
[tool.ruff]
line-length = 100
"""
POETRY = """\
[tool.poetry.dependencies]
python = "^3.11"
django = "*"
[tool.poetry.group.prod.dependencies]
gevent = "*"
[tool.poetry.extras]
mail = ["anymail"]
"""


class Memory:
    """A source tree of texts."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(self.files)

    @property
    def digest(self) -> str:
        return repr(sorted(self.files.items()))

    def read(self, path: str) -> bytes:
        return self.files[path].encode()


def found(files: dict[str, str], *names: str, version: str = "", root: str = "", **more: Any) -> Python:
    return packages.python(Memory(files), version, names, Installed(**more), root)


def digest(files: dict[str, str], name: str = "requirements.txt", **more: Any) -> str:
    return found(files, name, **more).digest


def test_requirements_and_all_they_include() -> None:
    base = {
        "requirements.txt": "-r sub/a.txt\ndjango\n",
        "sub/a.txt": "-c b.txt\nx==1 \\\n  --hash=sha256:0\n",
        "sub/b.txt": "y<2\n",
    }
    first = digest(base)
    assert first == digest({**base, "other.py": "x"})
    assert first == digest({**base, "requirements.txt": "# why\n-r sub/a.txt\n\ndjango  # yes\n"})
    assert first != digest({**base, "sub/b.txt": "y<3\n"})
    assert first != digest({**base, "sub/a.txt": "-c b.txt\nx==2\n"})
    assert first != digest(base, version="3.12")
    assert digest({"requirements.txt": "-r requirements.txt\nx\n"})  # includes itself: no endless loop


def test_all_that_is_asked_beside_the_files_counts() -> None:
    files = {"requirements.txt": "django\n", "c.txt": "django<6\n", "pyproject.toml": PROJECT}
    wanted: list[dict[str, Any]] = [
        {"packages": ("sentry-sdk",)},
        {"packages": ("sentry-sdk", "gevent")},
        {"constraints": ("c.txt",)},
        {"index": "https://one.example/simple"},
        {"extra_indexes": ("https://one.example/simple",)},
    ]
    digests = [digest(files), *(digest(files, **each) for each in wanted)]
    assert len(set(digests)) == len(digests)
    changed = {**files, "c.txt": "django<5\n"}
    assert digest(changed, constraints=("c.txt",)) != digest(files, constraints=("c.txt",))
    chosen: list[dict[str, Any]] = [{}, {"extras": ("mail",)}, {"groups": ("prod",)}]
    assert len({digest(files, "pyproject.toml", **each) for each in chosen}) == 3


def test_a_private_index_is_not_shared() -> None:
    files = {"requirements.txt": "django\n", "c.txt": "django<6\n", "d.txt": "x @ https://e.example/x.whl\n"}
    assert found(files, "requirements.txt", packages=("a[b]>1",), constraints=("c.txt",)).plain
    for more in (
        {"packages": ("a @ https://example.org/a.whl",)},
        {"constraints": ("d.txt",)},
        {"index": "https://one.example/simple"},
        {"extra_indexes": ("https://one.example/simple",)},
    ):
        assert not found(files, "requirements.txt", **more).plain, more


def test_packages_alone() -> None:
    alone = found({"manage.py": ""}, packages=("pretix",))
    assert (alone.kind, alone.files, alone.packages, alone.plain) == ("requirements", (), ("pretix",), True)
    assert found({"manage.py": ""}).kind == "none"


def test_pyproject_counts_as_far_as_it_installs_something() -> None:
    first = digest({"pyproject.toml": PROJECT}, "pyproject.toml")
    assert first == digest({"pyproject.toml": PROJECT.replace("100", "110")}, "pyproject.toml")
    assert first != digest({"pyproject.toml": PROJECT.replace("django", "flask")}, "pyproject.toml")
    uv = {"pyproject.toml": PROJECT, "uv.toml": "no-binary = true\n"}
    assert first != digest(uv, "pyproject.toml") and not found(uv, "pyproject.toml").plain
    assert found({"pyproject.toml": PROJECT}, "pyproject.toml").plain
    inner = {"back/pyproject.toml": PROJECT, "pyproject.toml": "[tool.ruff]\n"}
    plain = found(inner, "back/pyproject.toml")
    above = found({**inner, "pyproject.toml": "[tool.uv]\nno-binary = true\n"}, "back/pyproject.toml")
    assert plain.plain and not above.plain and plain.digest != above.digest, "uv looks upwards for its settings"
    assert not found({"pyproject.toml": PROJECT}, "pyproject.toml", groups=("prod",)).plain, "it has a URL"


def test_dynamic_dependencies_are_the_backends_to_tell() -> None:
    dynamic = '[project]\nname = "x"\ndynamic = ["dependencies"]\n'
    files = {"pyproject.toml": dynamic, "setup.py": "1"}
    any_file = found(files, "pyproject.toml")
    assert any_file.local and not any_file.plain and not any_file.tied
    assert any_file.digest != digest({**files, "setup.py": "2"}, "pyproject.toml")

    listed = {
        "pyproject.toml": dynamic + '[tool.setuptools.dynamic]\ndependencies = { file = ["deps.txt"] }\n',
        "deps.txt": "django\n",
    }
    first = digest(listed, "pyproject.toml")
    assert first == digest({**listed, "views.py": "2"}, "pyproject.toml"), "setuptools says which file decides"
    assert first != digest({**listed, "deps.txt": "flask\n"}, "pyproject.toml")
    with pytest.raises(DeploykitError, match=r"deps\.txt, which pyproject\.toml includes is not in the source"):
        digest({"pyproject.toml": listed["pyproject.toml"]}, "pyproject.toml")


def test_lock_files() -> None:
    pipenv = json.dumps({"_meta": {}, "default": {"django": {"version": "==5"}}, "develop": {}, "prod": {}})
    for name, beside, text, lock, kind in (
        ("uv.lock", "pyproject.toml", PROJECT, "version = 1\n", "uv"),
        ("poetry.lock", "pyproject.toml", POETRY, '[[package]]\nname = "django"\n', "poetry"),
        ("Pipfile.lock", "Pipfile", "", pipenv, "pipenv"),
    ):
        files = {f"back/{beside}": text, f"back/{name}": lock, "requirements.txt": "flask", "back/manage.py": ""}
        assert requirements.find(Memory(files), "back") == (f"back/{name}",)
        locked = found(files, f"back/{name}")
        assert (locked.kind, locked.files, locked.plain, locked.local) == (
            kind, (f"back/{beside}", f"back/{name}"), True, False,
        )  # fmt: skip
        changed = digest({**files, f"back/{name}": f"{lock} "}, f"back/{name}")
        assert locked.digest != changed
        assert locked.digest == digest({**files, "back/views.py": "x"}, f"back/{name}")
        assert locked.digest != digest(files, f"back/{name}", groups=("prod",))
    assert requirements.names(Memory({"Pipfile.lock": pipenv}), ["Pipfile.lock"]) == {"django"}
    poetry = {"pyproject.toml": POETRY, "poetry.lock": '[[package]]\nname = "Django-Q2"\n'}
    assert requirements.names(Memory(poetry), ["poetry.lock"]) == {"django-q2"}
    assert requirements.find(Memory({"pyproject.toml": POETRY}), "") == ("pyproject.toml",)
    assert requirements.find(Memory({"pyproject.toml": '[project]\ndynamic = ["version"]\n'}), "") == ()


def test_a_lock_that_names_folders_of_the_source() -> None:
    lock = 'version = 1\n[[package]]\nname = "x"\nsource = { editable = "." }\n'
    files = {"pyproject.toml": PROJECT, "uv.lock": lock, "lib/setup.py": "1"}
    assert not found(files, "uv.lock").local, "the project itself is not installed"
    files["uv.lock"] += '[[package]]\nname = "lib"\nsource = { editable = "lib" }\n'
    locked = found(files, "uv.lock")
    assert (locked.local, locked.tied, locked.plain) == (True, True, False)
    assert locked.digest != digest({**files, "lib/setup.py": "2"}, "uv.lock")
    other = {"pyproject.toml": POETRY, "poetry.lock": '[package.source]\ntype = "directory"\nurl = "lib"\n'}
    assert found(other, "poetry.lock").tied
    pipenv = {"Pipfile.lock": json.dumps({"default": {"lib": {"path": "./lib", "editable": True}}})}
    assert found(pipenv, "Pipfile.lock").tied


def test_a_member_of_a_uv_workspace() -> None:
    top = '[project]\nname = "top"\ndependencies = []\n[tool.uv.workspace]\nmembers = ["sites/*"]\n'
    lock = '[[package]]\nsource = { virtual = "." }\n[[package]]\nsource = { editable = "sites/blog" }\n'
    files = {"pyproject.toml": top, "uv.lock": lock, "sites/blog/pyproject.toml": PROJECT, "sites/blog/manage.py": ""}
    assert requirements.find(Memory(files), "sites/blog") == ("uv.lock",)
    member = found(files, "uv.lock", root="sites/blog", extras=("mail",))
    assert member.files == ("sites/blog/pyproject.toml", "uv.lock") and not member.local
    del files["uv.lock"]
    assert requirements.find(Memory(files), "sites/blog") == ("sites/blog/pyproject.toml",)


def test_packages_inside_the_source() -> None:
    files = {"requirements.txt": "./vendored\nwheels/x-1.whl\n", "vendored/setup.py": "1", "wheels/x-1.whl": "1"}
    first = found(files, "requirements.txt")
    assert (first.local, first.tied, first.plain) == (True, False, False)
    assert first.digest == digest({**files, "views.py": "2"})
    for changed in ("vendored/setup.py", "wheels/x-1.whl"):
        assert first.digest != digest({**files, changed: "2"})
    for line, tied in (("-e .", True), (".", False), ("--editable ./vendored", True), (".[extra]", False)):
        itself = {**files, "requirements.txt": f"{line}\n"}
        assert (found(itself, "requirements.txt").local, found(itself, "requirements.txt").tied) == (True, tied), line
        assert digest(itself) != digest({**itself, "views.py": "2"}), "any file may be part of it"
        same = found({**files, "requirements.txt": ""}, "requirements.txt", packages=(line,))
        assert (same.local, same.tied, same.plain) == (True, tied, False)
    with pytest.raises(DeploykitError, match="leads out of the source"):
        digest({"requirements.txt": "-e ../x\n"})
    with pytest.raises(DeploykitError, match="lib is not in the source"):
        digest({"requirements.txt": "./lib\n"})
    assert digest({"requirements.txt": "-e git+https://example.com/x.git#egg=x\nx @ https://e.example/x-1.whl\n"})


def test_commands_may_read_any_file() -> None:
    commands = found({"manage.py": "", "deps.txt": "django"}, commands=("pip install -r deps.txt",))
    assert (commands.kind, commands.local, commands.tied, commands.plain) == ("commands", True, True, False)
    other = found({"manage.py": "", "deps.txt": "flask"}, commands=("pip install -r deps.txt",))
    assert commands.digest != other.digest
    assert commands.digest != found({"manage.py": "", "deps.txt": "django"}, commands=("true",)).digest


@pytest.mark.parametrize(
    ("name", "more", "words"),
    [
        ("pyproject.toml", {"extras": ("nail",)}, ("extras", 'pyproject.toml has no extra "nail"', "mail")),
        ("uv.lock", {"groups": ("dev",)}, ("groups", 'pyproject.toml has no group "dev"', "more, prod")),
        ("requirements.txt", {"groups": ("prod",)}, ("groups", "groups are of pyproject.toml or of a lock file", "")),
        ("Pipfile.lock", {"extras": ("prod",)}, ("extras", "a Pipfile has no extras", "groups")),
        ("Pipfile.lock", {"groups": ("prod",)}, ("groups", 'Pipfile.lock has no group "prod"', "dev")),
    ],
)
def test_what_the_source_does_not_have(name: str, more: dict[str, Any], words: tuple[str, str, str]) -> None:
    files = {"pyproject.toml": PROJECT, "uv.lock": "", "requirements.txt": "", "Pipfile.lock": '{"develop": {}}'}
    with pytest.raises(packages.Mistake) as caught:
        found(files, name, **more)
    assert caught.value.key == words[0] and words[1] in caught.value.what and words[2] in caught.value.allowed
    spelled = found(files, "pyproject.toml", extras=("Mail",))
    assert spelled.extras == ("Mail",)


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ("^3.11", ">=3.11,<4"), ("~3.11", ">=3.11,<3.12"), ("~3.11.2", ">=3.11.2,<3.12"),
        (">=3.10,<3.13", ">=3.10,<3.13"), (">=3.10 <3.13", ">=3.10,<3.13"),
        ("3.12.*", "==3.12.*"), ("*", ""), ("~3.8 || ^3.11", ""),
    ],
)  # fmt: skip
def test_what_poetry_requires(spec: str, wanted: str) -> None:
    files = {"pyproject.toml": f'[tool.poetry.dependencies]\npython = "{spec}"\n'}
    assert required(Memory(files), ("",)) == wanted


def test_what_a_source_requires_and_what_it_hints_at() -> None:
    files = {"back/pyproject.toml": '[project]\nrequires-python = ">=3.12"\n', "pyproject.toml": POETRY}
    assert required(Memory(files), ("back", "")) == ">=3.12"
    assert required(Memory(files), ("front", "")) == ">=3.11,<4"
    assert required(Memory({}), ("",)) == ""
    for text, version in (
        ("3.12\n", "3.12"), ("# why\ncpython-3.12.4\n3.11\n", "3.12.4"), ("cpython@3.13", "3.13"),
        ("pypy3.10\n", ""), ("system\n", ""),
    ):  # fmt: skip
        hint = hinted(Memory({".python-version": text}), ("back", ""))
        assert hint == ((".python-version", version) if version else ("", "")), text
    assert hinted(Memory({"runtime.txt": "python-3.11.9"}), ("",)) == ("runtime.txt", "3.11.9")
    lock = json.dumps({"_meta": {"requires": {"python_version": "3.12"}}})
    assert hinted(Memory({"Pipfile.lock": lock}), ("",)) == ("Pipfile.lock", "3.12")
    assert hinted(Memory({"Pipfile.lock": "[]"}), ("",)) == ("", "")


def test_every_field_of_what_is_asked_reaches_the_host() -> None:
    names = {each.name for each in dataclasses.fields(Installed)} - {"commands", "apt"}
    assert names <= {each.name for each in dataclasses.fields(Python)}
