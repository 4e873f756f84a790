from pathlib import Path

import pytest

from core.benchmark.find import leaves_of
from core.errors import UserError
from core.planning.cost.history import PastCell
from core.planning.cost.workload import DOCS, expected_tokens, workload
from core.spec.parts import BenchmarkSpec


def past(
    benchmark: str = "gsm8k", checkpoint: str = "mine", docs: int = 100, limit: int | None = 100, **more: float
) -> PastCell:
    tokens = {"prompt": 1000.0 * docs, "cached": 800.0 * docs, "completion": 50.0 * docs, "ended": 1.0, **more}
    return PastCell(benchmark, checkpoint, limit, 5, docs, **tokens)


def spec(name: str = "gsm8k", **more: object) -> BenchmarkSpec:
    return BenchmarkSpec.model_validate({"name": name, **more})


def test_the_same_benchmark_in_the_store_says_most() -> None:
    found = workload(spec(limit=50), "mine", [past(checkpoint="other", completion=99.0), past()])
    assert found.docs == 50
    assert (found.tokens.computed, found.tokens.cached, found.tokens.decoded) == (10_000, 40_000, 2500)
    assert found.basis == "1 stored cell"


def test_other_models_answers_say_less() -> None:
    mine, others = workload(spec(), "mine", [past()]), workload(spec(), "mine", [past(checkpoint="other")])
    assert others.basis == "1 stored cell, other models'"
    assert others.spread > mine.spread
    assert workload(spec(), "mine", []).spread > others.spread


def test_a_whole_cell_tells_the_size_that_a_limit_is_set_against() -> None:
    whole = past("own", docs=37, limit=None)
    assert workload(spec(), "mine", [past(docs=1319, limit=None)]).docs == 1319
    found = workload(spec("gsm8k", limit=5000), "mine", [past(docs=1319, limit=None)])
    assert (found.docs, whole.docs) == (1319, 37)


def test_cells_with_other_shots_do_not_count() -> None:
    assert "guessed" in workload(spec(num_fewshot=0), "mine", [past()]).basis


def test_known_sizes_and_limits_without_history() -> None:
    assert workload(spec(), "", []).docs == 1319
    assert workload(spec(), "", []).basis == "size known, tokens guessed"
    assert workload(spec("mmlu", limit=10), "", []).docs == 570  # ten docs of each of 57 tasks
    assert workload(spec("mmlu", limit=10), "", []).basis == "size and limit known, tokens guessed"


def test_data_beside_the_yaml_is_counted() -> None:
    assert workload(spec("steelyard_facts"), "", []).docs == 230
    assert workload(spec("humaneval"), "", []).docs == 164


def test_a_benchmark_of_unknown_size_is_said_to_be_guessed(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "task: mine\ndataset_path: someone/unheard_of\noutput_type: generate_until\ntest_split: test\n"
        "doc_to_text: '{{q}}'\ndoc_to_target: '{{a}}'\n"
    )
    assert workload(spec(str(path)), "", []).basis == "size guessed, tokens guessed"
    limited = workload(spec(str(path), limit=20), "", [])
    assert (limited.docs, limited.basis) == (20, "limit known, tokens guessed")


def test_generation_decodes_choices_do_not_and_reasoning_decodes_most() -> None:
    assert workload(spec("hellaswag"), "", []).tokens.decoded == 0
    plain, thinking = workload(spec(), "", []), workload(spec(sampling={"max_tokens": 8000}), "", [], reasons=True)
    assert 0 < plain.tokens.decoded < thinking.tokens.decoded
    assert workload(spec(repeats=4), "", []).tokens.decoded == 4 * plain.tokens.decoded


def test_the_sum_of_many_is_less_uncertain_than_one() -> None:
    one = workload(spec(), "", [])
    tokens, spread = expected_tokens([one] * 4)
    assert tokens.decoded == 4 * one.tokens.decoded
    assert spread == pytest.approx(one.spread / 2)
    assert expected_tokens([])[1] == 0


def test_an_unknown_benchmark_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'gsm8k"):
        workload(spec("gsm8kk"), "", [])


def test_sizes_are_of_benchmarks_that_there_are() -> None:
    assert all(leaves_of(name) for name in DOCS)


def test_docs_made_to_a_length_are_that_long() -> None:
    lengths = [4096, 131072]
    both = workload(spec("ruler", label="long", metadata={"max_seq_lengths": lengths}), "m", [])
    assert (both.benchmark, both.docs) == ("long", 2 * DOCS["ruler"])
    assert both.tokens.computed == DOCS["ruler"] * sum(lengths)
