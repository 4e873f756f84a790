"""Samples as the HTML report embeds them: an index of small columns, and pages of texts, each gzipped JSON in base64. Pure."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from typing import TYPE_CHECKING, Any

import numpy as np

from core.compare.flips import FLIP_TEXTS, answer_of, listed

if TYPE_CHECKING:
    import pandas as pd

ROWS_IN_PAGE = 500
TEXT_LIMITS = (20_000, 4_000, 1_000, 300)  # characters of one text
WRONG, RIGHT, PARTLY, UNSCORED, FAILED = range(5)  # STATES of samples.js
COLUMNS = ("task", "doc_id", *FLIP_TEXTS, "metrics", "value", "prompt_tokens", "completion_tokens", "truncated")


@dataclass(frozen=True)
class Packed:
    """``index`` and ``pages`` in base64; ``text_limit`` is how long a text may be before its middle is left out."""

    index: str
    pages: list[str]
    rows: int
    text_limit: int


def pack(samples: pd.DataFrame, heads: Mapping[tuple[str, str], Mapping[str, Any]], most_bytes: int) -> Packed:
    """Pack samples (`COLUMNS`, ``model`` and ``benchmark``); ``heads`` has the headline of each (model, benchmark).

    Where all would take more than ``most_bytes`` the middles of long texts are left out. Rows of one doc stand together.
    """
    keys = ["benchmark", "task", "doc_id"]
    frame = samples.sort_values([*keys, "model"], kind="stable", ignore_index=True)
    index = _index(frame, keys, heads)
    places = range(0, len(frame), ROWS_IN_PAGE)
    for limit in TEXT_LIMITS:
        tried = places[:: max(1, len(places) // 8)]
        size = sum(len(_page(frame.iloc[at : at + ROWS_IN_PAGE], heads, limit)) for at in tried)
        if size * len(places) <= most_bytes * max(1, len(tried)):
            break
    pages = [_page(frame.iloc[at : at + ROWS_IN_PAGE], heads, limit) for at in places]
    return Packed(packed(index), pages, len(frame), limit)


def packed(value: Any) -> str:
    """Return JSON values gzipped, in base64; the same values give the same text."""
    data = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()


def shortened(text: str, limit: int) -> str:
    """Return a text without its middle, where it has more than ``limit`` characters, and with a note of how much that is."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half:,} characters left out of this report …]\n{text[-half:]}"


def _short(text: Any, limit: int) -> str:
    return shortened(text, limit) if isinstance(text, str) else ""


def _index(
    frame: pd.DataFrame, keys: Sequence[str], heads: Mapping[tuple[str, str], Mapping[str, Any]]
) -> dict[str, Any]:
    import pandas as pd

    columns: dict[str, Any] = {"rows_in_page": ROWS_IN_PAGE, "doc": frame["doc_id"].tolist()}
    for column in ("model", "benchmark", "task"):
        codes, names = pd.factorize(frame[column], sort=True)
        columns[column], columns[f"{column}s"] = codes.tolist(), [str(name) for name in names]
    columns["key"] = frame.groupby(list(keys), sort=False).ngroup().tolist()
    value = frame["value"].to_numpy(dtype=np.float64)
    higher = np.array(
        [heads[key]["higher_is_better"] for key in zip(frame["model"], frame["benchmark"], strict=True)], dtype=bool
    )
    good = np.where(higher, value, 1.0 - value)
    state = np.select([np.isnan(value), good >= 1.0, good <= 0.0], [UNSCORED, RIGHT, WRONG], PARTLY)
    columns["state"] = np.where(frame["error"].notna(), FAILED, state).tolist()
    columns["value"] = [None if np.isnan(each) else round(float(each), 6) for each in value]
    return columns


def _page(rows: pd.DataFrame, heads: Mapping[tuple[str, str], Mapping[str, Any]], limit: int) -> str:
    docs: dict[tuple[str, str, tuple[str, ...]], int] = {}  # texts that several models were given stand there once
    places, contents = [], []
    for row in rows.to_dict("records"):
        choices = tuple(shortened(str(choice), limit) for choice in listed(row["choices"]))
        doc = _short(row["prompt"], limit), _short(row["target"], limit), choices
        places.append(docs.setdefault(doc, len(docs)))
        contents.append(dict(_row(row, heads[row["model"], row["benchmark"]], limit)))
    # Few-shot examples, which stand in the page, are unpacked and searched once.
    opening = commonprefix([prompt for prompt, _, _ in docs])  # noqa: RUF071
    given = [
        {"prompt": prompt[len(opening) :], "target": target, "choices": choices} for prompt, target, choices in docs
    ]
    return packed({"opening": opening, "docs": given, "doc": places, "rows": contents})


def _row(row: Mapping[Any, Any], head: Mapping[str, Any], limit: int) -> Iterator[tuple[str, Any]]:
    error = row["error"] if isinstance(row["error"], str) else None
    yield "error", error
    answer = answer_of(row, head)
    if error is not None or [answer] != listed(row["texts"]):  # where it is the one text, that stands there once
        yield "answer", shortened(answer, limit)
    for name in ("texts", "reasoning"):
        yield name, [shortened(str(text), limit) for text in listed(row[name])]
    yield "logprobs", [round(float(number), 4) for number in listed(row["logprobs"]) if np.isfinite(number)]
    yield "filtered", {name: shortened(str(text), limit) for name, text in (row["filtered"] or {}).items()}
    yield "metrics", {name: number for name, number in (row["metrics"] or {}).items() if np.isfinite(number)}
    for name in ("prompt_tokens", "completion_tokens"):
        yield name, int(row[name]) if row[name] == row[name] else 0
    yield "truncated", row["truncated"] is True or bool(row["truncated"] == 1)
