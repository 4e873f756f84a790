"""What is said against a score."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

from core.sample import Sample, Score, Scoring
from core.store.quality import Quality, facts_of, notes, quality_of

SOUND = Sample("t", 0, json.dumps({"id": 1, "question": "2+2?"}), "2+2?", (), "4", texts=("4",))


def test_each_fault_is_counted_once_per_sample() -> None:
    samples = [
        SOUND,
        replace(SOUND, doc_id=1, doc=json.dumps({"id": 2, "question": "2+2?"})),  # the same question under another id
        replace(SOUND, doc_id=2, doc=json.dumps({"id": 3, "question": "3+3?"}), target=" "),
        replace(SOUND, doc_id=3, doc=json.dumps({"id": 4, "question": "4+4?"}), truncated=True, dropped_tokens=7),
        replace(SOUND, doc_id=4, doc=json.dumps({"id": 5, "question": "5+5?"}), texts=(), error="no", dropped_tokens=2),
    ]
    assert quality_of(samples) == Quality(
        docs=5, failed=1, truncated=1, shortened=2, dropped_tokens=9, duplicates=1, empty_targets=1
    )


def test_docs_of_two_tasks_are_no_duplicates_and_a_text_to_score_needs_no_target() -> None:
    text = replace(SOUND, task="prose", texts=(), target="", logprobs=(-3.0,))
    assert quality_of([SOUND, replace(SOUND, task="other"), text]) == Quality(3, 0, 0, 0, 0, 0, 0)


def test_docs_that_are_no_mappings_are_compared_whole() -> None:
    assert quality_of([replace(SOUND, doc='"a"'), replace(SOUND, doc='"a"'), replace(SOUND, doc='"b"')]).duplicates == 1


def test_notes_say_what_counts_and_nothing_of_a_sound_cell() -> None:
    assert notes(asdict(quality_of([SOUND]))) == ""
    assert notes({}) == ""
    counts = asdict(
        Quality(docs=1200, failed=0, truncated=30, shortened=2, dropped_tokens=1500, duplicates=0, empty_targets=1)
    )
    assert notes(counts) == (
        "30 of 1,200 answers cut at their length limit; 2 of 1,200 prompts cut on the left, 1,500 tokens in all; 1 empty targets"
    )


def test_faults_of_docs_and_the_harness_s_warnings_are_notes_with_their_counts() -> None:
    samples = (replace(SOUND, faults=("empty prompt", "shown")), replace(SOUND, doc_id=1, doc='"b"', faults=("shown",)))
    score = Score("t", "acc", "none", 1.0, None, 2, higher_is_better=True, primary=True)
    facts = facts_of(Scoring(samples, (score,), score, warnings=("lm-eval: no filter (2 times)",)))
    assert facts["quality"]["faults"] == {"empty prompt": 1, "shown": 2}
    assert notes(facts["quality"]) == ("1 of 2 docs: empty prompt; 2 of 2 docs: shown; lm-eval: no filter (2 times)")
    assert "warnings" not in facts_of(Scoring(samples, (score,), score))["quality"]
    assert json.loads(json.dumps(facts)) == facts
