"""How deploykit's time grows: a plan with the number of managed files, a redeploy with the size of the source."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from job import Job
from measure import Run, host, measured
from tools import Deploykit

FILES = (10, 100, 1000, 10_000)
SIZES = (1, 10, 100, 1000)  # MB
_MB = 1_000_000
_RECIPE = '''"""{count} small files, as a project's own recipe would have them."""

from deploykit.agent.resources import Directory, File


def recipe(host, facts, render):
    yield Directory("/etc/many")
    for number in range({count}):
        yield File(f"/etc/many/{{number}}.conf", f"number = {{number}}\\n" * 20)
'''

Keep = Callable[[dict[str, object]], None]
Say = Callable[[str], None]


class Growing(Deploykit):
    """A project whose host has a recipe of its own."""

    def tell(self) -> None:
        super().tell()
        toml = self.job.folder / "deploykit.toml"
        toml.write_text(toml.read_text().replace("[hosts.bench]\n", '[hosts.bench]\nrecipes = ["many"]\n'))

    def plan(self) -> list[str]:
        """`fab plan`"""
        return [self.command()[0], "plan"]

    def many(self, count: int) -> None:
        """The recipe, for so many files."""
        place = self.job.folder / "recipes/many.py"
        place.parent.mkdir(exist_ok=True)
        place.write_text(_RECIPE.format(count=count))


def files(folder: Path, keep: Keep, prefix: str, runs: int, say: Say) -> None:
    """Plans of a host with nothing to do, with more and more files beside one app."""
    with host(f"{prefix}-files") as box:
        tool = Growing(folder / "files", Job(folder / "files/project", 1), box)
        tool.many(1)
        tool.job.commit()
        _good(tool, tool.command())
        for count in FILES:
            tool.many(count)
            tool.job.commit()
            made = _good(tool, tool.command())
            _good(tool, tool.command())
            for _ in range(runs):
                run = _good(tool, tool.plan())
                keep({"kind": "files", "files": count, "plan": round(run.wall, 4), "made": round(made.wall, 4)})
            say(f"{count} files: made in {made.wall:.2f} s, a plan takes {run.wall:.2f} s")


def source(folder: Path, keep: Keep, prefix: str, runs: int, say: Say) -> None:
    """Redeploys after one file changed, with a source of more and more incompressible megabytes.

    The project is no git repository here: git itself would take longer for 1000 MB than anything that is measured.
    """
    for size in SIZES:
        with host(f"{prefix}-source") as box:
            place = folder / f"source{size}"
            tool = Deploykit(place, Job(place / "project", 1), box)
            shutil.rmtree(tool.job.folder / ".git")
            data = tool.job.folder / "app01/data"
            data.mkdir()
            for number in range(size):
                (data / f"{number:04}.bin").write_bytes(os.urandom(_MB))
            first = _good(tool, tool.command())
            _good(tool, tool.command())
            for _ in range(runs):
                idle = _good(tool, tool.command())
                tool.job.edit(tool.job.apps[0])
                run = _good(tool, tool.command())
                tool.job.check(box.address)
                keep(
                    {
                        "kind": "source",
                        "megabytes": size,
                        "first": round(first.wall, 3),
                        "nothing": round(idle.wall, 4),
                        "redeploy": round(run.wall, 4),
                        "sent": run.sent,
                    }
                )
            say(f"{size} MB: first {first.wall:.1f} s, nothing {idle.wall:.2f} s, redeploy {run.wall:.2f} s")
        shutil.rmtree(place)


def _good(tool: Deploykit, argv: list[str]) -> Run:
    run = measured(tool.box, argv, tool.job.folder, tool.environment())
    if run.status:
        raise RuntimeError(f"{' '.join(argv[-2:])} ended with {run.status}:\n{run.output[-3000:]}")
    return run
