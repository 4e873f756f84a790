"""Scores and how sure they are: against scipy, statsmodels and the harness, and worked by hand."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from core.scoring.statistics import estimate, interval, pass_at_k, repeated, wilson

NAN = math.nan
TOLERANCE = 1e-9

scores = st.lists(st.floats(0.0, 1.0), min_size=2, max_size=40)


def close(value: object) -> object:
    return pytest.approx(value, abs=TOLERANCE)


def test_the_standard_error_of_docs_on_their_own_is_scipys() -> None:
    values = np.random.default_rng(0).normal(size=50)
    found = estimate(values)
    assert (found.value, found.stderr) == (close(values.mean()), close(scipy.stats.sem(values)))
    assert (found.docs, found.clusters, found.df) == (50, 50, 49)


def test_a_clustered_standard_error_by_hand() -> None:
    # mean 1/2, residuals ±1/2; sums by cluster 1, -1, 0; SE² = 3/2 · (1 + 1 + 0)/6² = 1/12
    found = estimate([1, 1, 0, 0, 1, 0], clusters=["a", "a", "b", "b", "c", "c"])
    assert (found.value, found.stderr) == (close(0.5), close(math.sqrt(1 / 12)))
    assert (found.clusters, found.df) == (3, 2)


def test_the_clustered_standard_error_is_statsmodels_cr1() -> None:
    from statsmodels.api import OLS

    rng = np.random.default_rng(1)
    values, clusters = rng.normal(size=60), rng.integers(0, 11, 60)
    fitted = OLS(values, np.ones(60)).fit(cov_type="cluster", cov_kwds={"groups": clusters})
    assert estimate(values, clusters=clusters).stderr == close(fitted.bse[0])


def test_clusters_of_one_doc_each_change_nothing() -> None:
    values = [0.1, 0.7, 0.4, 0.4]
    assert estimate(values, clusters=[4, 3, 2, 1]).stderr == close(estimate(values).stderr)


def test_a_group_weighted_by_size_has_the_harnesss_pooled_standard_error() -> None:
    from lm_eval.api.metrics import pooled_sample_stderr

    rng = np.random.default_rng(2)
    tasks = np.repeat(["a", "b", "c"], [30, 5, 12])
    values = rng.random(47)
    each = [values[tasks == name] for name in "abc"]
    found = estimate(values, tasks=tasks)
    assert found.value == close(values.mean())
    assert found.stderr == close(pooled_sample_stderr([scipy.stats.sem(x) for x in each], [len(x) for x in each]))


def test_tasks_that_weigh_the_same_by_hand() -> None:
    # means 1/2 and 1; weights 1/4, 1/4 and 1/2; e = 1/8, -1/8, 0; SE² = 3/(3 - 2) · (1/64 + 1/64)
    found = estimate([1, 0, 1], tasks=["a", "a", "b"], weights="tasks")
    assert (found.value, found.stderr, found.df) == (close(0.75), close(math.sqrt(3 / 32)), 1)


def test_clusters_that_span_tasks_are_statsmodels_with_one_correction() -> None:
    from statsmodels.api import OLS

    rng = np.random.default_rng(3)
    tasks, clusters = np.repeat(np.arange(4), 10), np.tile(np.arange(10), 4)  # one question in four languages
    values = rng.normal(size=40) + rng.normal(size=10)[clusters]
    dummies = (tasks[:, None] == np.arange(4)).astype(float)
    fitted = OLS(values, dummies).fit(cov_type="cluster", cov_kwds={"groups": clusters, "use_correction": False})
    weights = np.full(4, 0.25)
    found = estimate(values, tasks=tasks, clusters=clusters)
    assert found.stderr == close(math.sqrt(weights @ fitted.cov_params() @ weights * 10 / 9))
    assert found.df == 9


def test_clusters_within_tasks_cost_a_degree_of_freedom_for_each_task() -> None:
    found = estimate([1, 0, 1, 0, 1, 1], tasks=[0, 0, 0, 1, 1, 1], clusters=[0, 0, 1, 2, 3, 3])
    assert (found.clusters, found.df) == (4, 2)


def test_a_doc_without_a_value_is_left_out() -> None:
    assert estimate([1, NAN, 0, 1], clusters=[1, 1, 2, 3]) == estimate([1, 0, 1], clusters=[1, 2, 3])


def test_one_doc_has_no_standard_error_and_none_has_no_score() -> None:
    assert math.isnan(estimate([0.5]).stderr)
    assert math.isnan(estimate([NAN]).value)
    assert all(map(math.isnan, interval([NAN])))
    assert all(map(math.isnan, interval([7.5])))  # no proportion, so nothing bounds it


@given(scores, st.integers(0, 2**32))
def test_the_order_of_docs_does_not_matter(values: list[float], seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(values))
    clusters = np.arange(len(values)) // 3
    a = estimate(values, clusters=clusters)
    b = estimate(np.array(values)[order], clusters=clusters[order])
    assert a.value == close(b.value)
    assert a.stderr == pytest.approx(b.stderr, abs=TOLERANCE, nan_ok=True)


def test_wilson_by_hand() -> None:
    # 7 of 10, z² = 3.8415: centre (0.7 + z²/20)/(1 + z²/10) = 0.644493,
    # half z/(1 + z²/10) · √(0.7·0.3/10 + z²/400) = 0.247715
    z = 1.959963984540054
    centre, half = (0.7 + z**2 / 20) / (1 + z**2 / 10), z / (1 + z**2 / 10) * math.sqrt(0.021 + z**2 / 400)
    assert (round(centre, 6), round(half, 6)) == (0.644493, 0.247715)
    assert interval([1] * 7 + [0] * 3) == close((centre - half, centre + half))


@pytest.mark.parametrize(("right", "docs", "level"), [(0, 5, 0.95), (5, 5, 0.95), (1, 1, 0.95), (31, 230, 0.9)])
def test_values_of_0_and_1_have_scipys_wilson_interval(right: int, docs: int, level: float) -> None:
    wanted = scipy.stats.binomtest(right, docs).proportion_ci(level, method="wilson")
    assert interval([1] * right + [0] * (docs - right), level=level) == close(tuple(wanted))


def test_several_tasks_have_wilsons_interval_over_as_many_docs_as_would_vary_so_little() -> None:
    # Shares 0.9 and 0.1 of 10 docs each: p = 1/2, Σe² = (2·10·0.09)/20² = 0.0045, n = 0.25/0.0045
    values = [1] * 9 + [0] + [1] + [0] * 9
    assert interval(values, tasks=[0] * 10 + [1] * 10) == close(wilson(0.5, 0.25 / 0.0045))


def test_other_values_have_scipys_t_interval() -> None:
    values = np.random.default_rng(4).normal(3.0, 1.0, 20)
    assert interval(values, level=0.9) == close(tuple(scipy.stats.ttest_1samp(values, 0.0).confidence_interval(0.9)))


def test_a_proportions_interval_stays_within_0_and_1() -> None:
    low, high = interval([1.0, 0.9, 1.0, 0.2])
    assert 0.0 <= low < high == 1.0


def test_docs_all_alike_are_not_taken_for_certainty() -> None:
    assert interval([1.0] * 6, clusters=[0, 0, 1, 1, 2, 2]) == close(wilson(1.0, 3))
    assert interval([0.25] * 8) == close(wilson(0.25, 8))
    assert interval([0.1] * 30) == close(wilson(0.1, 30))  # whose mean is not 0.1 to the last digit
    assert interval([7.5, 7.5]) == (7.5, 7.5)


@given(scores, st.sampled_from([0.8, 0.95, 0.99]), st.booleans())
def test_an_interval_holds_its_score_and_a_higher_level_is_wider(
    values: list[float], level: float, clustered: bool
) -> None:
    clusters = np.arange(len(values)) // 2 if clustered else None
    low, high = interval(values, clusters=clusters, level=level)
    wider = interval(values, clusters=clusters, level=0.999)
    score = np.mean(values)
    assert 0.0 <= wider[0] <= low + TOLERANCE
    assert low - TOLERANCE <= score <= high + TOLERANCE
    assert high - TOLERANCE <= wider[1] <= 1.0


def test_variance_within_and_between_docs_by_hand() -> None:
    # doc means 1/2, 1, 0 with variance 1/4; within (1/4 + 1/4)/3 = 1/6; between 1/4 - (1/6)/2 = 1/6
    found = repeated([[1, 0], [1, 1], [0, 0]])
    assert (found.value, found.within, found.between) == (close(0.5), close(1 / 6), close(1 / 6))
    assert (found.docs, found.repeats) == (3, 2.0)
    assert found.stderr == close(math.sqrt(0.25 / 3)) == found.stderr_at(2)
    assert found.stderr_at(8) == close(math.sqrt((1 / 6 + 1 / 48) / 3))
    assert found.stderr_at(math.inf) == close(math.sqrt(1 / 18))


def test_variance_components_are_those_of_the_analysis_of_variance() -> None:
    import pandas as pd
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    rng = np.random.default_rng(5)
    values = rng.normal(size=(12, 1)) + rng.normal(size=(12, 4))
    frame = pd.DataFrame({"value": values.ravel(), "doc": np.repeat(np.arange(12), 4)})
    squares = anova_lm(ols("value ~ C(doc)", frame).fit())["mean_sq"]
    found = repeated(values)
    assert found.within == close(squares["Residual"])
    assert found.between == close((squares["C(doc)"] - squares["Residual"]) / 4)
    assert found.stderr == close(math.sqrt(squares["C(doc)"] / 48))


def test_missing_answers_leave_a_doc_fewer_repeats() -> None:
    # means 1/2 and 1; within 1/2 over one spare answer; harmonic mean of 2 and 1 answers 4/3; between 1/8 - 3/8 < 0
    found = repeated([[1.0, 0.0], [1.0, NAN], [NAN, NAN]])
    assert (found.docs, found.value, found.within) == (2, close(0.75), close(0.5))
    assert (found.repeats, found.between) == (close(4 / 3), 0.0)


def test_one_answer_per_doc_says_nothing_about_repeats() -> None:
    found = repeated([[1], [0], [1]])
    assert found.stderr == close(estimate([1, 0, 1]).stderr)
    assert math.isnan(found.within)
    assert math.isnan(found.stderr_at(10))
    assert repeated(np.empty((0, 3))).docs == 0


def test_pass_at_k_is_the_share_of_draws_with_a_pass() -> None:
    assert pass_at_k(4, 1, 2) == close(0.5)  # 1 - C(3,2)/C(4,2) = 1 - 3/6
    assert pass_at_k(10, 3, 5) == close(1 - 21 / 252)  # C(7,5) of C(10,5) have none
    assert (pass_at_k(5, 0, 5), pass_at_k(5, 1, 5)) == (0.0, 1.0)


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_ratio_of_binomial_coefficients(case: tuple[int, int, int]) -> None:
    n, c, k = case
    assert pass_at_k(n, c, k) == close(1 - math.comb(n - c, k) / math.comb(n, k))


@pytest.mark.parametrize(("samples", "passed", "k"), [(3, 1, 4), (3, 4, 1), (3, -1, 1), (3, 1, 0)])
def test_pass_at_k_refuses_what_cannot_be(samples: int, passed: int, k: int) -> None:
    with pytest.raises(ValueError, match="needs 1 <= k"):
        pass_at_k(samples, passed, k)
