"""deploykit: provision one VM over SSH and deploy Django apps to it."""

__version__ = "0.1.0"
