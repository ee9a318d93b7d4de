"""The kinds of resources that every recipe may use: files, packages, accounts, services."""

from deploykit.agent.resources.accounts import Group, User
from deploykit.agent.resources.files import Absent, DataDirectory, Directory, File, Link
from deploykit.agent.resources.packages import Package
from deploykit.agent.resources.services import REREAD, Service, SharedService

__all__ = [
    "REREAD",
    "Absent",
    "DataDirectory",
    "Directory",
    "File",
    "Group",
    "Link",
    "Package",
    "Service",
    "SharedService",
    "User",
]
