"""The console script `deploykit`: the same commands as `fab`, without a fabfile."""

from __future__ import annotations

from invoke.collection import Collection
from invoke.program import Program

from deploykit import __version__, tasks


def main() -> None:
    """Runs the program."""
    commands = Collection.from_module(tasks)
    Program(name="deploykit", binary="deploykit", namespace=commands, version=__version__).run()
