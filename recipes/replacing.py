"""`${...}` in what the user writes, by what it stands for."""

from __future__ import annotations

import re
from collections.abc import Mapping

from deploykit.agent.secret import HostSecret, Joined, Quoted, Secret
from deploykit.agent.values import REFERENCE, Value


def replaced(text: str, names: Mapping[str, Value], pattern: re.Pattern[str] = REFERENCE) -> Value:
    """`text` with its references replaced: plain text if it can be, else what hides itself."""
    parts: list[str | Secret | HostSecret | Quoted] = []
    at = 0
    for found in pattern.finditer(text):
        parts.append(text[at : found.start()])
        at = found.end()
        value: Value = "${" if found["name"] is None else names[found["name"]]
        parts += value.parts if isinstance(value, Joined) else (value,)
    parts = [part for part in (*parts, text[at:]) if part != ""]
    if any(isinstance(part, HostSecret | Quoted) for part in parts):
        return parts[0] if len(parts) == 1 and isinstance(parts[0], HostSecret) else Joined(tuple(parts))
    done = "".join(part.reveal() if isinstance(part, Secret) else str(part) for part in parts)
    return Secret(done) if any(isinstance(part, Secret) for part in parts) else done
