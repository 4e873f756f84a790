"""Docs that belong together: questions about one passage, translations of one question. Together they say less than as many alone.

A benchmark names the doc field that tells which in its YAML: ``metadata: {cluster: passage}``. The cell's commit record keeps the
name, the samples keep the docs.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable

log = logging.getLogger("steelyard.results")


def cluster_keys(benchmark: str, docs: Iterable[str], field: str) -> list[str]:
    """Return a key for each doc (JSON), equal where ``field`` is. A doc without it is alone, and the log says so."""
    keys, missing = [], 0
    for number, text in enumerate(docs):
        doc = json.loads(text)
        if isinstance(doc, dict) and doc.get(field) is not None:
            keys.append(json.dumps(doc[field], sort_keys=True))
        else:
            keys.append(f"doc {number}")
            missing += 1
    if missing:
        log.warning(
            "benchmark %r: metadata.cluster = %r: %d of %d docs have no such field, each counts as a cluster of its own",
            benchmark,
            field,
            missing,
            len(keys),
        )
    return keys
