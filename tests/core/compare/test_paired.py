"""Paired comparison: against scipy and statsmodels, worked by hand, and what must hold whatever the values."""

import math
import string

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from core.compare.paired import (
    MCNEMAR,
    PAIRED_T,
    SIGN_FLIP,
    bonett_price,
    cluster_keys,
    compact_letters,
    compare_paired,
    holm,
    mcnemar,
    share_letter,
)
from core.scoring.statistics import estimate

NAN = math.nan
TOLERANCE = 1e-9

# Ten docs only the first model answers, three only the second, 37 both.
FIRST = [1] * 10 + [0] * 3 + [1] * 37
SECOND = [0] * 10 + [1] * 3 + [1] * 37

values = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.0, 1.0).map(lambda value: round(value, 3)))
binary = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1, max_size=60)
mixed = st.lists(st.tuples(values, values), min_size=1, max_size=60)


def close(value: object) -> object:
    return pytest.approx(value, abs=TOLERANCE)


def test_mcnemar_by_hand() -> None:
    # 10 to 3: 2 · (C(13,0) + C(13,1) + C(13,2) + C(13,3))/2¹³ = 2 · 378/8192
    found = compare_paired(FIRST, SECOND)
    assert found.p_value == close(756 / 8192)
    assert (found.difference, found.method, found.docs) == (close(7 / 50), MCNEMAR, 50)
    assert (found.wins, found.losses, found.ties) == (10, 3, 37)


def test_bonett_and_prices_interval_by_hand() -> None:
    # 11/52 - 4/52 ± 1.96 · √((15/52 - (7/52)²)/52)
    half = 1.959963984540054 * math.sqrt((15 / 52 - (7 / 52) ** 2) / 52)
    assert bonett_price(10, 3, 50) == close((7 / 52 - half, 7 / 52 + half))
    found = compare_paired(FIRST, SECOND)
    assert (found.low, found.high) == close(bonett_price(10, 3, 50))


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (10, 3), (40, 41), (300, 200)])
def test_mcnemar_is_statsmodels_exact_one(wins: int, losses: int) -> None:
    from statsmodels.stats.contingency_tables import mcnemar as reference

    assert mcnemar(wins, losses) == close(reference([[5, wins], [losses, 7]], exact=True).pvalue)


def test_other_values_are_scipys_paired_t() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.2, 1.0, 80), rng.normal(0.0, 1.0, 80)
    wanted = scipy.stats.ttest_rel(a, b)
    found = compare_paired(a, b, level=0.9)
    assert (found.method, found.p_value, found.difference) == (PAIRED_T, close(wanted.pvalue), close((a - b).mean()))
    assert (found.low, found.high) == close(tuple(wanted.confidence_interval(0.9)))


def test_clusters_are_tested_on_their_standard_error() -> None:
    rng = np.random.default_rng(1)
    a, b, clusters = rng.integers(0, 2, 200), rng.integers(0, 2, 200), np.repeat(np.arange(40), 5)
    found, differences = compare_paired(a, b, clusters=clusters), estimate(a - b, clusters=clusters)
    assert found.method == "paired t, clusters"
    assert found.p_value == close(2 * scipy.stats.t.sf(abs(differences.value / differences.stderr), 39))


def test_few_docs_have_their_signs_flipped_by_hand() -> None:
    # 0.5 + 0.25 - 0.1; of the 8 ways to set signs, 2 give as much (all +, as now) and 2 · 2/8 is the p-value.
    found = compare_paired([0.5, 0.25, 0.0], [0.0, 0.0, 0.1])
    assert (found.method, found.p_value) == (SIGN_FLIP, close(0.5))
    assert (found.low, found.high) == (-1.0, 1.0)  # three docs cannot reject anything at 5%


def test_ends_of_the_sign_flips_interval_by_hand() -> None:
    # Six docs, 64 ways, 1.6 in each tail: one is the flip of nothing, so that the smallest and the largest mean remain.
    differences = np.array([0.125, 0.25, 0.375, 0.5, 0.625, 0.75])
    found = compare_paired(differences, np.zeros(6))
    assert (found.low, found.high, found.p_value) == (0.125, 0.75, close(2 / 64))


@given(st.lists(st.integers(-20, 20), min_size=2, max_size=9))
@settings(max_examples=50)
def test_sign_flips_are_scipys_permutation_test(hundredths: list[int]) -> None:
    differences = np.array(hundredths) / 100 + 0.0001  # no doc is 0 or 1
    wanted = scipy.stats.permutation_test((differences,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert compare_paired(differences, np.zeros(len(differences))).p_value == close(wanted.pvalue)


def test_a_clusters_docs_are_flipped_together() -> None:
    a, b = [0.5, 0.3, 0.2, 0.4, 0.9, 0.1], [0.1, 0.2, 0.3, 0.1, 0.5, 0.3]
    sums = np.array([0.5, 0.2, 0.2])
    wanted = scipy.stats.permutation_test((sums,), np.sum, permutation_type="samples")
    found = compare_paired(a, b, clusters=["x", "x", "y", "y", "z", "z"])
    assert (found.method, found.p_value) == ("sign flips, clusters", close(wanted.pvalue))


def test_random_flips_come_near_the_normal_test_where_both_hold() -> None:
    differences = np.random.default_rng(2).normal(0.3, 1.0, 29)
    found, wanted = compare_paired(differences, np.zeros(29)), scipy.stats.ttest_1samp(differences, 0.0)
    assert found.method == SIGN_FLIP
    assert found.p_value == pytest.approx(wanted.pvalue, abs=0.01)
    assert (found.low, found.high) == pytest.approx(tuple(wanted.confidence_interval()), abs=0.05)


def test_a_few_large_differences_among_many_docs_are_not_taken_for_normal() -> None:
    differences = np.zeros(1000)
    differences[:3] = 0.5
    found = compare_paired(differences, np.zeros(1000))
    assert found.method == SIGN_FLIP
    assert found.p_value == pytest.approx(2 / 2**3, abs=0.02)


def test_tasks_that_weigh_the_same_are_not_mcnemars() -> None:
    a, b, tasks = [1, 1, 0, 1] * 20, [0, 1, 1, 1] * 20, [0] * 60 + [1] * 20
    assert compare_paired(a, b, tasks=tasks).method == MCNEMAR
    found = compare_paired(a, b, tasks=tasks, weights="tasks")
    differences = estimate(np.subtract(a, b), tasks=tasks, weights="tasks")
    assert (found.method, found.difference) == (PAIRED_T, close(differences.value))


def test_only_docs_with_both_values_count() -> None:
    found = compare_paired([*FIRST, NAN, 1, NAN], [*SECOND, 1, NAN, NAN])
    assert (found.docs, found.left_out) == (50, 3)
    assert found.p_value == compare_paired(FIRST, SECOND).p_value


def test_no_common_doc_gives_no_numbers() -> None:
    found = compare_paired([1.0, NAN], [NAN, 0.0])
    assert (found.docs, found.left_out, found.method) == (0, 2, "no common doc")
    assert all(math.isnan(number) for number in (found.difference, found.low, found.high, found.p_value))
    assert compare_paired([], []).docs == 0


def test_one_doc_decides_nothing() -> None:
    for a, b in ((1.0, 0.0), (0.5, 0.25)):
        found = compare_paired([a], [b])
        assert (found.p_value, found.high) == (1.0, 1.0)
        assert found.low < 0.0
    assert compare_paired([20.0], [10.0]).low == -math.inf


def test_models_that_are_equal_on_every_doc_do_not_differ() -> None:
    for answers in ([1, 0, 1], [0.3] * 40, [12.0] * 40):
        found = compare_paired(answers, answers)
        assert (found.difference, found.p_value, found.ties) == (0.0, 1.0, len(answers))
        assert found.low <= 0.0 <= found.high


@given(st.one_of(binary, mixed), st.booleans())
@settings(max_examples=60)
def test_swapping_the_models_mirrors_everything(pairs: list[tuple[float, float]], clustered: bool) -> None:
    a, b = map(np.array, zip(*pairs, strict=True))
    clusters = np.arange(len(a)) // 2 if clustered else None
    one, other = compare_paired(a, b, clusters=clusters), compare_paired(b, a, clusters=clusters)
    assert (one.difference, one.low, one.high) == close((-other.difference, -other.high, -other.low))
    assert (one.p_value, one.method) == (close(other.p_value), other.method)
    assert (one.wins, one.losses, one.ties) == (other.losses, other.wins, other.ties)


@given(st.one_of(binary, mixed), st.integers(0, 2**32))
@settings(max_examples=60)
def test_the_order_of_docs_does_not_matter(pairs: list[tuple[float, float]], seed: int) -> None:
    a, b = map(np.array, zip(*pairs, strict=True))
    order = np.random.default_rng(seed).permutation(len(a))
    one, other = compare_paired(a, b), compare_paired(a[order], b[order])
    assert (one.difference, one.low, one.high) == close((other.difference, other.low, other.high))
    assert (one.p_value, one.method) == (close(other.p_value), other.method)


@given(st.one_of(binary, mixed))
@settings(max_examples=60)
def test_the_interval_holds_the_difference_and_agrees_with_the_test(pairs: list[tuple[float, float]]) -> None:
    a, b = map(np.array, zip(*pairs, strict=True))
    found = compare_paired(a, b)
    assert -1.0 <= found.low <= found.difference + TOLERANCE
    assert found.difference - TOLERANCE <= found.high <= 1.0
    if found.method == MCNEMAR:  # whose exact p-value and interval are two methods
        return
    if found.low > TOLERANCE or found.high < -TOLERANCE:
        assert found.p_value <= 0.05 + TOLERANCE
    elif found.low < -TOLERANCE and found.high > TOLERANCE:
        assert found.p_value > 0.05 - TOLERANCE


def test_holm_by_hand() -> None:
    # sorted 0.005·4, 0.01·3, 0.03·2, 0.04·1, and none below the one before it
    assert holm([0.01, 0.04, 0.03, 0.005]) == close([0.03, 0.06, 0.06, 0.02])


def test_a_pair_that_was_not_tested_counts_as_no_test() -> None:
    assert holm([0.01, NAN, 0.04]) == pytest.approx([0.02, NAN, 0.04], nan_ok=True)
    assert len(holm([])) == 0


def test_letters_of_a_chain() -> None:
    # The first differs from the third alone.
    differ = np.zeros((3, 3), dtype=bool)
    differ[0, 2] = differ[2, 0] = True
    assert compact_letters(differ) == ["a", "ab", "b"]
    assert compact_letters(np.zeros((3, 3), dtype=bool)) == ["a", "a", "a"]
    assert compact_letters(~np.eye(3, dtype=bool)) == ["a", "b", "c"]


@given(
    st.integers(1, 9).flatmap(
        lambda n: st.tuples(st.just(n), st.sets(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1))))
    )
)
def test_two_models_share_a_letter_exactly_where_they_do_not_differ(case: tuple[int, set[tuple[int, int]]]) -> None:
    models, pairs = case
    differ = np.zeros((models, models), dtype=bool)
    for one, other in pairs:
        differ[one, other] = differ[other, one] = one != other
    letters = compact_letters(differ)
    assert letters[0].startswith("a")
    for one in range(models):
        for other in range(models):
            assert share_letter(letters[one], letters[other]) == (not differ[one, other])


def test_letters_do_not_run_out() -> None:
    letters = compact_letters(~np.eye(60, dtype=bool))
    assert letters[:52] == list(string.ascii_letters)
    assert letters[52:54] == ["a1", "b1"]
    assert not share_letter("a1", "a")
    assert not share_letter("", "")


def test_docs_have_one_key_where_the_field_is_the_same() -> None:
    docs = ['{"passage": {"id": 1, "text": "x"}}', '{"passage": {"text": "x", "id": 1}}', '{"passage": 1}']
    first, second, third = cluster_keys("passages", docs, "passage")
    assert first == second != third


def test_a_doc_without_the_field_is_alone_and_said_so(caplog: pytest.LogCaptureFixture) -> None:
    keys = cluster_keys("passages", ['{"p": "x"}', '{"q": 1}', '{"p": null}', "3", '{"p": "x"}'], "p")
    assert (keys[0], len(set(keys))) == (keys[4], 4)
    assert "'p': 3 of 5 docs have no such field" in caplog.text
