"""Virtualenvs: what an app asks for is resolved by the app, made once, and shared by links.

What is plain (versions from the index, as wheels) is built by a user of its own who never runs a line of any package,
from exactly the files whose hashes the app's own resolution named; so equal virtualenvs cost a host one download, one
unpacking and one compilation, and no app can slip anything into another one's. Whatever is not plain (a package that
must be compiled, one from git or from the source's own folder, an index of one's own) is built by the app's user for
the app alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import re
import shutil
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploykit.agent import installing, trees
from deploykit.agent.deployment import Deployment, whole
from deploykit.agent.installing import Tell
from deploykit.agent.process import TimedOut, run

#: Who builds what is shared: `recipes/python.py` makes the account, its cache and this folder.
BUILDER = "_deploykit"
CACHE = Path("/var/cache/deploykit/uv")
SHARED = Path("/var/lib/deploykit/venvs")
#: The cache is begun anew when it has grown beyond this. Bytes.
_CACHE_LIMIT = 3 * 2**30

#: Interpreters that root may run: the system's, and those that deploykit installed.
_TRUSTED = re.compile(r"/usr/bin/python3\.\d+|/opt/deploykit/python/[^/]+/bin/python3\.\d+")

#: All that pins may consist of. Anything else (a URL, another index, a path) is no business of the builder's.
_PINNED = re.compile(
    r"(?:(?:--index-url|-i) https://pypi\.org/simple/?|#.*|--hash=sha256:[0-9a-f]{64}"
    r"|[A-Za-z0-9][A-Za-z0-9._-]*(?:\[[A-Za-z0-9,._ -]*\])?==[A-Za-z0-9.!+_-]+(?: ?;[^\\]*)?)?"
)

#: The mark of a shared one that was made to its end.
_BUILT = ".built"

#: FOLDER COUNT: as `compileall -j COUNT`, which takes half as long again: it hands out each file for itself. No
#: link is followed: an app may have it lead to another's file, whose constants it would read in what is compiled.
COMPILE = """
import compileall, os, sys
top, count = sys.argv[1:]
files = []
for folder, inner, names in os.walk(top):
    inner[:] = [each for each in inner if each != "node_modules"]
    files += [f"{folder}/{name}" for name in names if name.endswith(".py")]
files = sorted(each for each in files if not os.path.islink(each))
count = int(count)
for number in range(count):
    if number == count - 1 or os.fork() == 0:
        for file in files[number::count]:
            compileall.compile_file(file, quiet=2)
        break
if number == count - 1:
    for _ in range(count - 1):
        os.wait()
"""

_locks: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)


def trusted(virtualenv: Path) -> str | None:
    """The interpreter behind a virtualenv's `python`, when root may run it: never the virtualenv's own."""
    python = os.path.realpath(virtualenv / "bin/python")
    return python if _TRUSTED.fullmatch(python) else None


def complete(deployment: Deployment) -> bool:
    """Whether the virtualenv was made to its end, and what it shares is there."""
    return whole(deployment.virtualenv)


def install(deployment: Deployment, tell: Tell) -> None:
    """Makes the virtualenv of a release whose code is in place; then it is root's, and complete. Raises Failed."""
    if complete(deployment):
        return
    venv, user = deployment.virtualenv, deployment.app
    trees.remove(venv)
    venv.mkdir(mode=0o750)
    shutil.chown(venv, "root", user)  # uv, as the app, looks whether an interpreter is in it
    try:
        uv = installing.Uv(deployment, tell)
        if not _shared(deployment, uv):
            _alone(deployment, uv)
    except BaseException:
        trees.remove(venv, check=False)
        raise
    shutil.chown(venv, "root", user)
    venv.chmod(0o750)
    os.sync()  # a power cut must not leave empty files behind a mark that says complete
    (venv / ".complete").touch()


def prune() -> None:
    """Drops what no app's virtualenv leads to any more. Not while a virtualenv is being made."""
    used = {Path(os.readlink(each)).parent for each in Path("/srv").glob("*/venvs/*/lib") if each.is_symlink()}
    with contextlib.suppress(FileNotFoundError):
        for folder in SHARED.iterdir():
            if folder not in used:
                trees.remove(folder, check=False)


# -- by the app's user, for the app alone ------------------------------------------------------------------------------


def _alone(deployment: Deployment, uv: installing.Uv) -> None:
    venv, user = deployment.virtualenv, deployment.app
    shutil.chown(venv, user, user)
    installing.fill(deployment, uv)
    account = pwd.getpwnam(user)
    trees.take(venv, account.pw_uid, 0, account.pw_gid)
    (venv / ".lock").unlink(missing_ok=True)  # uv's


# -- by the builder, for all -------------------------------------------------------------------------------------------


def _shared(deployment: Deployment, uv: installing.Uv) -> bool:
    """Links the app's virtualenv to the one that all equal ones share; False: it is none that can be shared."""
    want = deployment.venv
    if not want.plain or not SHARED.is_dir():
        return False
    pins = _pins(deployment, uv)
    if not all(_PINNED.fullmatch(line.strip().removesuffix("\\").strip()) for line in pins.splitlines()):
        return False
    python = os.path.realpath(want.python) if want.python.startswith("/") else want.python
    place = SHARED / hashlib.sha256(f"{python}\0{pins}".encode()).hexdigest()[:24]
    with _locks[place]:  # a second app that wants the same one waits for it
        if not (place / _BUILT).exists() and not _build(deployment, place, pins):
            return False
    _link(place, deployment.virtualenv)
    return True


def _pins(deployment: Deployment, uv: installing.Uv) -> str:
    """Every package at one version, with the hashes of its files. Resolved by the app, in whose name it is done.

    A package that has no metadata but by running its setup.py runs that here, as the app's user.
    """
    want = deployment.venv
    listed = ["--quiet", "--no-header", "--no-annotate", "--generate-hashes", "--python", want.python]
    told = ("--emit-index-url", "--emit-find-links", "--emit-build-options")  # so that they are seen, and not shared
    extra = "".join(f"{each}\n" for each in want.extra)
    words = [word for word in installing.asked(deployment) if word != "-r"]
    if want.kind in ("requirements", "pyproject", "none"):
        return uv("pip", "compile", *listed, *told, *words, "-", stdin=extra, quiet=True)
    known = set(re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==", uv.locked, re.MULTILINE))
    # All of it once more, at these very versions, since ours may need some of them; what is new is added.
    everything = re.sub(r" \\\n +--hash=\S+", "", uv.locked) + extra
    added = uv("pip", "compile", *listed, *told, *words, "-", stdin=everything, quiet=True)
    blocks = re.split(r"^(?=[A-Za-z0-9])", added, flags=re.MULTILINE)
    return uv.locked + "".join(block for block in blocks if block.partition("==")[0] not in known)


def _build(deployment: Deployment, place: Path, pins: str) -> bool:
    """Makes the shared virtualenv; False when it takes more than unpacking wheels."""
    want = deployment.venv
    trees.remove(place, check=False)
    place.mkdir(mode=0o700)
    listing = place / "pinned.txt"
    listing.write_text(pins)
    shutil.chown(place, BUILDER, BUILDER)
    shutil.chown(listing, BUILDER, BUILDER)
    _bound(CACHE)
    env = {
        **dict(want.environment),
        "HOME": str(CACHE.parent),
        "UV_CACHE_DIR": str(CACHE),
        # What is installed becomes root's, and the cache stays the builder's: it may not link to a file that has become
        # root's (protected_hardlinks), which uv takes for an error when it happens in the midst of a package.
        "UV_LINK_MODE": "copy",
    }
    pip = ("pip", "install", "--quiet", "--python", str(place / "bin/python"))
    for words in (
        ("venv", "--quiet", "--allow-existing", "--python", want.python, str(place)),
        (*pip, "--no-deps", "--no-build", "--require-hashes", "-r", str(listing)),
    ):
        # Its complaints are nobody's business: the app's own build, which follows, says what is wrong.
        if not _ran([want.uv, *words], env, place, deployment.command_timeout):
            trees.remove(place, check=False)
            return False
    python = trusted(place)
    if python is None:
        trees.remove(place, check=False)
        return False
    _seal(place)
    # Not by the virtualenv's own python: a package's .pth file would run as root.
    count = str(os.cpu_count() or 1)
    run([python, "-I", "-S", "-c", COMPILE, str(place / "lib"), count], check=False)
    place.chmod(0o755)
    os.sync()  # as for the app's own: the mark says that all is there
    (place / _BUILT).touch(mode=0o644)
    return True


def _ran(argv: Sequence[str], env: Mapping[str, str], folder: Path, seconds: float) -> bool:
    try:
        return run(argv, user=BUILDER, env=env, cwd=str(folder), check=False, timeout=seconds).returncode == 0
    except TimedOut:
        return False


def _seal(folder: Path) -> None:
    """Root's alone to write. uv leaves a lock file there that anybody may write to: it must not be shared."""
    run(["chown", "-R", "-h", "root:root", str(folder)])
    (folder / ".lock").unlink(missing_ok=True)
    run(["chmod", "-R", "go-w", str(folder)])


def _bound(cache: Path) -> None:
    used = sum(os.lstat(os.path.join(top, name)).st_blocks * 512 for top, _, each in os.walk(cache) for name in each)
    if used > _CACHE_LIMIT:
        for each in cache.iterdir():
            trees.remove(each, check=False)


def _link(place: Path, venv: Path) -> None:
    """A virtualenv with scripts of its own, which say where they are; the packages are links to the shared ones."""
    for each in place.iterdir():
        target = venv / each.name
        if each.name == "bin":
            target.mkdir()
            for script in each.iterdir():
                _rewritten(script, target / script.name, str(place), str(venv))
        elif each.is_symlink() or each.name == "pyvenv.cfg":
            shutil.copy2(each, target, follow_symlinks=False)
        elif each.name != _BUILT:
            target.symlink_to(each)


def _rewritten(source: Path, target: Path, old: str, new: str) -> None:
    """A script says where its python is."""
    shutil.copy2(source, target, follow_symlinks=False)
    if source.is_symlink():  # to the interpreter
        return
    content = source.read_bytes()
    if old.encode() in content:
        target.write_bytes(content.replace(old.encode(), new.encode()))
