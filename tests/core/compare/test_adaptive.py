"""Docs in random order, in rounds, and which cells may be compared."""

from __future__ import annotations

from core.compare.adaptive import of_docs, rounds, same_docs, shuffled, values_of
from core.store.quality import early
from tests.core.store_parts import make_scoring

DOCS = [f"task/{number}" for number in range(400)]


def test_the_order_is_random_and_the_same_for_everybody() -> None:
    order = shuffled(DOCS)
    assert order == shuffled(reversed(DOCS))
    assert sorted(order) == sorted(DOCS)
    first = [int(doc.split("/")[1]) for doc in order[:100]]
    assert 150 < sum(first) / 100 < 250


def test_fewer_docs_are_the_same_order_without_the_others() -> None:
    half = set(DOCS[:200])
    assert shuffled(half) == [doc for doc in shuffled(DOCS) if doc in half]


def test_rounds_grow_and_have_every_doc_once() -> None:
    parts = list(rounds(DOCS))
    assert [doc for part in parts for doc in part] == DOCS
    assert [len(part) for part in parts] == [64, 32, 48, 72, 108, 76]


def test_samples_of_docs_that_were_not_asked_are_left_out() -> None:
    scoring = make_scoring()
    docs = [f"{sample.task}/{sample.doc_id}" for sample in scoring.samples]
    kept = of_docs(scoring, docs[:1])
    assert kept.samples == scoring.samples[:1]
    assert kept.scores == scoring.scores
    assert values_of(kept.samples) == {docs[0]: scoring.samples[0].value}


def test_prompts_may_differ_between_cells_that_are_compared_and_docs_may_not() -> None:
    def cell(**changes: str) -> dict[str, object]:
        task = {"version": 1, "rows": "a", "targets": "b", "prompts": "c", **changes}
        return {"benchmark": {"tasks": {"own": task}}}

    assert same_docs(cell(), cell(prompts="with a chat template"))
    assert not same_docs(cell(), cell(rows="others"))
    assert not same_docs(cell(), {"benchmark": {"tasks": {}}})


def test_a_cell_that_ended_early_says_so() -> None:
    assert early({"docs": 96, "of": 1319}) == "ended after 96 of 1,319 docs"
    assert early({"docs": 1319, "of": 1319}) == early(None) == ""
