"""Which requirements are plain, so that what they ask for may be built for several apps at once."""

from __future__ import annotations

import pytest

from deploykit.config import packages


class Files:
    def __init__(self, **files: str) -> None:
        self.files = {name.replace("__", "/").replace("_DOT_", "."): text for name, text in files.items()}

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(self.files)

    @property
    def digest(self) -> str:
        return str(sorted(self.files.items()))

    def read(self, path: str) -> bytes:
        return self.files[path].encode()


PLAIN = (
    "django",
    "Django==5.2.19",
    "psycopg[binary,pool] >=3, <4",
    "foo ; python_version < '3.9' and sys_platform != 'win32'",
    "a (>=1)",
    "foo==1.*  # a comment",
)


@pytest.mark.parametrize("line", PLAIN)
def test_versions_from_the_index(line: str) -> None:
    assert packages.python(Files(requirements_DOT_txt=f"django\n{line}\n"), "", ("requirements.txt",)).plain


@pytest.mark.parametrize(
    "line",
    [
        "x @ git+https://example.org/x",
        "git+https://example.org/x#egg=x",
        "https://example.org/x-1-py3-none-any.whl",
        "foo==1 --hash=sha256:ab",
        "foo==1 \\\n    --hash=sha256:ab",
        "--index-url https://example.org/simple",
        "--extra-index-url=https://example.org/simple",
        "-i https://example.org/simple",
        "-f https://example.org/wheels",
        "--no-binary :all:",
        "--pre",
        "-r https://example.org/requirements.txt",
    ],
)
def test_all_else_is_the_apps_own_business(line: str) -> None:
    files = Files(requirements_DOT_txt=f"django\n{line}\n", more_DOT_txt=f"{line}\n", base_DOT_txt="-r more.txt\n")
    assert not packages.python(files, "", ("requirements.txt",)).plain
    assert not packages.python(files, "", ("base.txt",)).plain


def test_a_file_of_its_own_is_not_plain() -> None:
    files = Files(requirements_DOT_txt="./lib\n", lib__setup_DOT_py="", wheel_DOT_txt="./x-1.whl\n")
    files.files["x-1.whl"] = "PK"
    assert not packages.python(files, "", ("requirements.txt",)).plain
    assert not packages.python(files, "", ("wheel.txt",)).plain


@pytest.mark.parametrize(
    ("more", "plain"),
    [("", True), ("[tool.uv.sources]\ndjango = { git = 'https://example.org' }\n", False), ("[tool.ruff]\n", True)],
)
def test_pyproject(more: str, plain: bool) -> None:
    files = Files(pyproject_DOT_toml=f"[project]\nname = 'x'\ndependencies = ['django>=5', 'a[b]']\n{more}")
    assert packages.python(files, "", ("pyproject.toml",)).plain is plain
    direct = Files(pyproject_DOT_toml="[project]\nname = 'x'\ndependencies = ['a @ https://example.org/a.whl']\n")
    assert not packages.python(direct, "", ("pyproject.toml",)).plain
