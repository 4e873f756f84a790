"""Keys of Prefect artifacts."""

from __future__ import annotations


def artifact_key(kind: str, name: str) -> str:
    """Return ``<kind>-<name>`` in the lower-case letters, digits and dashes that Prefect takes."""
    words = "".join(c if c.isascii() and c.isalnum() else " " for c in name.lower()).split()
    return "-".join([kind, *words])
