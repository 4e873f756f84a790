"""A warning about what several models share is logged once."""

from __future__ import annotations

import pytest

from core.log import warn_once


def test_a_warning_is_logged_once_and_another_too(caplog: pytest.LogCaptureFixture) -> None:
    for text in ("of one benchmark", "of another benchmark", "of one benchmark"):
        warn_once(text)
    assert caplog.messages == ["of one benchmark", "of another benchmark"]
