"""The kinds of resources that every recipe may use: files, packages, accounts, services."""

from deploykit.agent.resources.accounts import Group, User
from deploykit.agent.resources.files import Absent, Directory, File, Link
from deploykit.agent.resources.packages import Package
from deploykit.agent.resources.services import REREAD, Service

__all__ = ["REREAD", "Absent", "Directory", "File", "Group", "Link", "Package", "Service", "User"]
