"""Whether the hub answers, found out once and quickly: a library left alone with a silent hub tries for minutes."""

from __future__ import annotations

import time

PROBE_SECONDS = 5
KEPT_SECONDS = 60
_last: tuple[float, str | None] | None = None


def hub_fault() -> str | None:
    """Say why the hub cannot be asked, None where it answers. Takes 5 s at most, and holds for a minute."""
    global _last
    from huggingface_hub import constants, get_session

    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    if _last is None or time.monotonic() - _last[0] > KEPT_SECONDS:
        try:
            get_session().head(constants.ENDPOINT, timeout=PROBE_SECONDS)
            fault = None
        except Exception as error:  # its HTTP client's errors have no base that stays
            fault = type(error).__name__
        _last = (time.monotonic(), fault)
    return _last[1]
