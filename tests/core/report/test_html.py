"""The HTML report: what it shows, that it needs nothing from elsewhere, and that what models wrote stays text."""

import base64
import gzip
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from core.compare.compare import compare_store
from core.monitor.timeline import Span
from core.report.html import PAGE, read_report, report_html
from core.report.samples import COLUMNS, pack, shortened
from core.results import Store, open_store
from core.sample import Cell, Sample, Score, Scoring
from tests.core.store_parts import METADATA, PLACEMENT

HOSTILE = "</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>\u2028&amp;"
SETTINGS = {"checkpoint": "c0ffee", "revision": "rev-1", "dtype": "float32", "note": HOSTILE}


class Page(HTMLParser):
    """Elements with their attributes, and the text in them."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.text = ""
        self._script: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.text += " "
        if tag == "script":
            self._script = str(dict(attrs).get("id", f"code {len(self.scripts)}"))
            self.scripts[self._script] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is None:
            self.text += data
        else:
            self.scripts[self._script] += data

    def unpacked(self, name: str) -> Any:
        return json.loads(gzip.decompress(base64.b64decode(self.scripts[name])))


def samples_of(model: str, values: list[float | None], error: str | None = None) -> tuple[Sample, ...]:
    return tuple(
        Sample(
            task="gsm8k",
            doc_id=place,
            doc="{}",
            prompt=f"How much is {place}? {HOSTILE}",
            choices=(),
            target=str(place),
            texts=(f"{model}: {HOSTILE}",),
            reasoning=(f"{model} ponders",),
            filtered={"strict": HOSTILE},
            values={"exact_match,strict": value} if value is not None else {},
            value=value,
            error=error if value is None else None,
        )
        for place, value in enumerate(values)
    )


def fill(store: Store, run: str = "r1") -> None:
    values: dict[str, list[float | None]] = {
        "tiny": [1.0, 0.0, 0.5, None] + [1.0] * 16,
        "large": [1.0, 1.0, 1.0, None] + [0.0] * 16,
    }
    for letter, (model, each) in zip("ab", values.items(), strict=True):
        samples = samples_of(model, each, error="it died")
        mean = float(np.mean([value for value in each if value is not None]))
        score = Score("gsm8k", "exact_match", "strict", mean, 0.1, 19, higher_is_better=True, primary=True)
        placement = {**PLACEMENT, "weight_bytes": 35_000_000_000}
        metadata = {**METADATA, "placement": placement, "monitor": {"gpu_utilisation_mean": 81.0}}
        store.commit(Cell(letter * 64, model, "gsm8k", SETTINGS), Scoring(samples, (score,), score), metadata)
        store.write_model_run("nightly", run, {"model": model, "cells": {"gsm8k": letter * 64}})
        phases = (("load", 0.0, 2.0), ("generate", 2.0, 8.0), ("close", 8.0, 10.0))
        store.write_timeline(
            "nightly", run, [Span(model, "benchmarks", "distributed", p, "gsm8k", s, e) for p, s, e in phases]
        )
    manifest = {
        "campaign": "nightly",
        "run": run,
        "spec": {"name": "nightly", "fleet": {"price_per_gpu_hour": 3.6}, "note": HOSTILE},
        "versions": {"vllm": "0.32.0"},
        "seconds": 12.0,
        "failures": {},
        "models": [],
    }
    store.write_campaign(manifest)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = open_store(str(tmp_path / "store"))
    fill(opened)
    return opened


@pytest.fixture
def page(store: Store) -> Page:
    return Page(report_html(read_report(store, "nightly")))


def test_nothing_is_asked_of_the_network(page: Page) -> None:
    policy = [attrs for tag, attrs in page.elements if tag == "meta" and "http-equiv" in attrs]
    assert str(policy[0]["content"]).startswith("default-src 'none'; ")
    assert {tag for tag, _ in page.elements} & {"link", "img", "iframe", "object", "embed", "base", "form"} == set()
    for tag, attrs in page.elements:
        assert "src" not in attrs, tag
        assert str(attrs.get("href", "#")).startswith("#")


def test_everything_that_the_script_looks_for_is_there_once(page: Page) -> None:
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    script = (PAGE / "page.js").read_text(encoding="utf-8")
    asked = set(re.findall(r'get\("([^"]+)"\)', script)) | {"benchmark", "state", "model", "against"}
    assert asked <= set(ids)


def test_what_models_and_people_wrote_stays_text(page: Page) -> None:
    assert sorted(page.scripts) == ["charts", "code 4", "code 5", "index", "page-0", "plotly"]
    assert not any("onerror" in attrs for _, attrs in page.elements)
    assert "alert(1)" in page.text  # the spec's and the settings' own, escaped
    assert not any("alert(1)" in script for script in page.scripts.values())
    assert page.unpacked("page-0")["rows"][0]["texts"] == [f"large: {HOSTILE}"]


def test_the_leaderboard_says_what_steelyard_results_says(page: Page, store: Store) -> None:
    board = compare_store(store, "nightly").board
    (tiny,) = board[board["model"] == "tiny"].to_dict("records")
    words = page.text.split()
    best = [f"[{tiny['low']:.4f},", f"{tiny['high']:.4f}]", tiny["letters"]]
    assert words[words.index("gsm8k") + 1 :][:6] == ["tiny", "exact_match", "0.9211", *best]
    assert "35.00" in words
    assert "are not told apart" in page.text


def test_charts_have_scores_intervals_sizes_cost_and_the_timeline(page: Page) -> None:
    charts = json.loads(page.scripts["charts"])
    assert list(charts) == ["chart-scores", "chart-heat", "chart-against", "chart-timeline"]
    for view in [view for views in charts.values() for view in views]:
        go.Figure(data=view["data"], layout=view["layout"])  # raises for what plotly does not know
    (scores,) = charts["chart-scores"][0]["data"]
    assert (scores["y"], scores["x"]) == (["large", "tiny"], pytest.approx([3 / 19, 17.5 / 19]))
    assert all(length > 0.0 for length in scores["error_x"]["array"])
    views = {view["name"]: view["data"][0]["x"] for view in charts["chart-against"]}
    assert views == {
        "size": [35.0, 35.0],
        "tokens": [400, 400],
        "GPU-seconds": [8.0, 8.0],
        "cost": pytest.approx([0.008, 0.008]),
    }
    assert charts["chart-heat"][0]["data"][0]["z"] == [[0.0], [1.0]]
    spans = {trace["name"]: (trace["base"], trace["x"]) for trace in charts["chart-timeline"][0]["data"]}
    assert spans["generate"] == ([2.0, 2.0], [6.0, 6.0])


def test_samples_stand_by_doc_with_their_states_and_reasoning_apart(page: Page) -> None:
    index, rows = page.unpacked("index"), page.unpacked("page-0")
    assert index["models"] == ["large", "tiny"]
    assert index["doc"][:8] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert index["key"][:8] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert index["state"][:8] == [1, 1, 1, 0, 1, 2, 4, 4]  # right, right, right, wrong, right, partly, no answer twice
    assert index["value"][5:8] == [0.5, None, None]
    assert rows["rows"][1]["reasoning"] == ["tiny ponders"]
    assert rows["rows"][6]["error"] == "it died"
    assert rows["doc"][:4] == [0, 0, 1, 1]
    assert rows["opening"] + rows["docs"][1]["prompt"] == f"How much is 1? {HOSTILE}"


def test_utilisation_environment_and_fingerprints_are_there(page: Page) -> None:
    for text in ("60%", "81", "vllm 0.32.0", "price_per_gpu_hour: 3.6", "a" * 64, "rev-1", "nightly, run r1"):
        assert text in page.text


def test_of_too_many_samples_the_same_docs_of_every_model_stay(store: Store) -> None:
    found = read_report(store, "nightly", most_samples=14)
    assert found.every == 3
    kept = {model: own["doc_id"].tolist() for model, own in found.samples.groupby("model")}
    assert kept == {"large": [0, 3, 6, 9, 12, 15, 18], "tiny": [0, 3, 6, 9, 12, 15, 18]}
    assert "One doc in 3 of each task" in Page(report_html(found)).text
    none = Page(report_html(read_report(store, "nightly", most_samples=0)))
    assert none.unpacked("index")["doc"] == []
    assert "Without samples" in none.text


def test_long_texts_lose_their_middle_where_the_file_would_grow_too_large(store: Store) -> None:
    rng = np.random.default_rng(1)
    long = "".join(chr(letter) for letter in rng.integers(97, 123, 30_000))
    samples = (Sample("essay", 0, "{}", "p", (), "t", texts=(long,), value=1.0),)
    score = Score("essay", "acc", "none", 1.0, None, 1, higher_is_better=True, primary=True)
    store.commit(Cell("c" * 64, "tiny", "essay", SETTINGS), Scoring(samples, (score,), score), METADATA)
    found = read_report(store)
    assert len(Page(report_html(found)).unpacked("page-0")["rows"][0]["texts"][0]) == len(shortened(long, 20_000))
    small = Page(report_html(found, most_bytes=3_000))
    assert small.unpacked("page-0")["rows"][0]["texts"][0] == shortened(long, 1_000)
    assert "Texts of more than 1,000 characters lack their middle" in small.text
    assert shortened(long, 1_000).startswith(f"{long[:500]}\n[… 29,000 characters left out")


def test_a_campaign_under_way_is_marked_partial(store: Store) -> None:
    store.write_model_run("nightly", "r2", {"model": "tiny", "cells": {"gsm8k": "a" * 64, "mmlu": "d" * 64}})
    assert "its run r2 has not ended" in Page(report_html(read_report(store, "nightly"))).text


def test_of_two_cells_of_one_model_the_newer_one_is_shown(store: Store) -> None:
    samples = samples_of("tiny", [0.0] * 20)
    score = Score("gsm8k", "exact_match", "strict", 0.0, 0.1, 20, higher_is_better=True, primary=True)
    store.commit(Cell("c" * 64, "tiny", "gsm8k", SETTINGS), Scoring(samples, (score,), score), METADATA)
    page = Page(report_html(read_report(store)))
    assert "1 older results of the same models" in page.text
    assert "c" * 64 not in page.text  # no run asks for it
    assert len(page.unpacked("index")["doc"]) == 40


def test_columns_that_an_older_schema_lacks_are_empty() -> None:
    row = dict.fromkeys(COLUMNS) | {"task": "t", "doc_id": 0, "prompt": "p", "value": 1.0, "model": "m"}
    row |= {"benchmark": "b", "choices": [], "texts": ["x"], "logprobs": [], "truncated": False, "target": math.nan}
    row |= {"prompt_tokens": math.nan, "completion_tokens": 3}
    packed = pack(pd.DataFrame([row]), {("m", "b"): {"metric": "acc", "higher_is_better": True}}, 10_000)
    page = json.loads(gzip.decompress(base64.b64decode(packed.pages[0])))
    assert (page["rows"][0]["reasoning"], page["rows"][0]["prompt_tokens"]) == ([], 0)
    assert page["docs"][0]["target"] == ""
