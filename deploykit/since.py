"""`--since`: a time as a person writes it."""

from __future__ import annotations

import re
from datetime import datetime

from deploykit.errors import DeploykitError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def read(text: str) -> dict[str, float]:
    """{"ago": seconds} for "10m" (by the host's own clock), {"since": epoch seconds} for a time in our own zone."""
    found = re.fullmatch(r"(\d{1,9})\s*([smhdw])(?:in|ec|ins|ours?|ays?|eeks?)?(?:\s+ago)?", text.strip())
    if found:
        return {"ago": float(int(found[1]) * _SECONDS[found[2]])}
    if re.fullmatch(r"\d{1,2}:\d\d(:\d\d)?", text.strip()):
        text = f"{datetime.now():%Y-%m-%d} {text.strip():0>5}"
    try:
        return {"since": datetime.fromisoformat(text.strip().replace("Z", "+00:00")).timestamp()}
    except (ValueError, OverflowError):
        raise DeploykitError(f"{text!r} is no time", "--since", "10m, 2h, 3d, 14:30, or 2026-01-31T12:00") from None
