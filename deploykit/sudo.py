"""How a login user becomes root, and what sudo's refusals mean."""

from __future__ import annotations

from deploykit.errors import DeploykitError

#: sudo's words and those of sudo-rs, which is Ubuntu's sudo from 25.10 on: https://github.com/trifectatechfoundation/sudo-rs
_WANTS_PASSWORD = ("password is required", "interactive authentication is required")
_NO_SUDOER = ("not in the sudoers", "may not run", "not allowed", "I'm afraid I can't do that")
_WRONG_PASSWORD = (
    *("incorrect password", "no password was provided", "try again"),
    *("incorrect authentication attempt", "Authentication required but not attempted"),
)


def prefix(user: str, *, password: bool) -> str:
    """What stands before a command of root's: nothing for root. With `password`, sudo reads it as the first line."""
    if user == "root":
        return ""
    # -k: sudo must read the password even when it remembers an earlier one, or it would be left for the program.
    return "sudo -k -S -p '' " if password else "sudo -n "


def wants_password(said: str) -> bool:
    """Whether sudo said that it cannot go on without a password."""
    return any(words in said for words in _WANTS_PASSWORD)


def refusal(user: str, status: int, said: str, where: str) -> DeploykitError | None:
    """What sudo refused, in words; None when it is not sudo that failed."""
    if user == "root" or "sudo" not in said:
        return None
    if any(words in said for words in _NO_SUDOER):
        return DeploykitError(f"{user} may not become root there", where, "log in as root or as a sudoer (`user`)")
    if any(words in said for words in _WRONG_PASSWORD):
        return DeploykitError("sudo does not accept the password", where, "run again")
    if status == 127:
        return DeploykitError(f"{user} is not root and there is no sudo", where, "log in as root (`user`)")
    return None
