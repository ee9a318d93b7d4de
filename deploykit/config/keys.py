"""How a key of a table is declared: once, for the reader, the JSON schema and docs/reference.md."""

from __future__ import annotations

from dataclasses import MISSING, field
from typing import Any


def key(
    description: str,
    allowed: str,
    default: Any = MISSING,
    *,
    ge: int | None = None,
    le: int | None = None,
    example: str = "",
    pattern: str = "",
) -> Any:
    """One key of a table.

    `allowed` says in words what the value may be, `ge` and `le` bound a number, `example` is TOML for the
    reference, `pattern` is for editors only: the rules themselves say it in words.
    """
    metadata: dict[str, Any] = {"description": description, "allowed": allowed, "example": example}
    if ge is not None:
        metadata["ge"] = ge
    if le is not None:
        metadata["le"] = le
    if pattern:
        metadata["json_schema_extra"] = {"pattern": pattern}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)
