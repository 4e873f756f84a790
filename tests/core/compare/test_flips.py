import pandas as pd
import pytest

from core.compare.flips import agreement


def frame(first: list[list[float]], second: list[list[float]]) -> pd.DataFrame:
    rows = [("a", doc, logprobs) for doc, logprobs in enumerate(first)]
    rows += [("b", doc, logprobs) for doc, logprobs in enumerate(second)]
    columns = [(model, "letters", "t", doc, logprobs) for model, doc, logprobs in rows]
    return pd.DataFrame(columns, columns=["model", "benchmark", "task", "doc_id", "logprobs"])


def test_a_flipped_answer_and_the_largest_difference_are_counted() -> None:
    (row,) = agreement(frame([[-1.0, -2.0], [-3.0, -1.0]], [[-1.5, -2.0], [-1.0, -3.0]]), "a", "b")
    assert (row.docs, row.same_answers) == (2, 0.5)
    assert row.logprob_max == pytest.approx(2.0)


def test_docs_that_only_one_model_answered_are_left_out() -> None:
    (row,) = agreement(frame([[-1.0, -2.0], [-3.0, -1.0]], [[-1.0, -2.0]]), "a", "b")
    assert (row.docs, row.same_answers, row.logprob_max) == (1, 1.0, 0.0)


def test_generation_has_no_choices_to_compare() -> None:
    assert agreement(frame([[]], [[]]), "a", "b") == []
