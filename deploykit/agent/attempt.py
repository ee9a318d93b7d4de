"""Work that may fail for any reason, because of what an app has put in its way: it fails, and the run goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from deploykit.agent.resource import Failed, NotYet

T = TypeVar("T")


def attempt(work: Callable[[], T], what: str, app: str) -> T | Failed:
    """What `work` returns, or how it failed: `what` is what was worked on, `app` whose it is ("": the host's own)."""
    try:
        return work()
    except Failed as failure:
        failure.app = failure.app or app
        return failure
    except NotYet as early:
        return Failed(
            f"{what} cannot be looked at yet: {early}", todo="its recipe must come after what it needs", app=app
        )
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        todo = "free some disk space" if error.errno == 28 else "correct that on the host"
        return Failed(f"{what}: {error.strerror or error}{where}", _place(error), f"{todo}, then deploy again", app)
    except Exception as error:  # noqa: BLE001 (whatever it is, it must not cost the other apps their deploy)
        # Its text may hold values: only where it happened is shown, never with what.
        what = f"deploykit itself failed: {type(error).__name__}, {what}"
        return Failed(what, _place(error), "deploy again; if it happens again, report it with this message", app)


def _place(error: Exception) -> str:
    """Where in our own code it happened, for a report."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)[-2:]
    return "\n".join(f"{frame.filename.rpartition('/deploykit/')[2]}:{frame.lineno} {frame.name}" for frame in frames)
