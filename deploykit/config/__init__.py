"""The configuration: deploykit.toml -> `Project` -> `values.Host`.

project = load("deploykit.toml")                  # every mistake at once, before any connection
entries = choose(project, "web1,web2")
project = resolve(project)                        # { env = "X" } and { command = "..." }
host = complete(project, entries[0], trees)       # plain frozen values for the recipes
"""

from deploykit.config.choose import choose
from deploykit.config.complete import complete
from deploykit.config.load import load, loads
from deploykit.config.project import AppEntry, DatabaseEntry, HostEntry, Project, Source, VagrantEntry
from deploykit.config.resolve import resolve

__all__ = [
    "AppEntry",
    "DatabaseEntry",
    "HostEntry",
    "Project",
    "Source",
    "VagrantEntry",
    "choose",
    "complete",
    "load",
    "loads",
    "resolve",
]
