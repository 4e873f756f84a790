"""Reasoning is split from answers as lm-evaluation-harness splits it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.benchmark.benchmark import load_benchmark
from core.campaign import BenchmarkSpec
from core.request import Generate, Generated
from core.scoring.reasoning import cut, split_reasoning

END = "</think>"
PIECES = st.lists(st.sampled_from([END, "\n\n", "Q:", " ", "so 4", "", "</thi"]), max_size=12).map("".join)


@settings(deadline=None)
@given(PIECES, st.lists(st.sampled_from(["\n\n", "Q:", ""]), max_size=3))
def test_answers_are_the_harness_s(text: str, until: list[str]) -> None:
    from lm_eval.models.utils import postprocess_generated_text

    assert cut(split_reasoning(text, END)[1], until) == postprocess_generated_text(text, until, END)


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("2+2\n\nis 4</think>\n\n4", "2+2\n\nis 4", "4"),
        ("a</think>b</think> c", "a</think>b", "c"),
        ("never ended", "", "never ended"),
        ("</think>4", "", "4"),
    ],
)
def test_what_is_cut_off_is_kept(text: str, reasoning: str, answer: str) -> None:
    assert split_reasoning(text, END) == (reasoning, answer)


def test_a_benchmark_s_stop_strings_end_the_answer_and_not_the_reasoning() -> None:
    spec = BenchmarkSpec(name="steelyard_arithmetic", limit=2)
    plain, reasoned = (load_benchmark(spec, chat=None, seed=1, think_end_token=end) for end in (None, END))
    first, asked = plain.requests()[0], reasoned.requests()
    assert isinstance(first, Generate)
    assert "\n" in first.sampling.until
    assert all(isinstance(request, Generate) and request.sampling.until == () for request in asked)

    texts = ["I add.\n\nThen I look again.</think> {} \nQuestion: another", "thinking on and on"]
    targets = [
        sample.target for sample in plain.score({r.id: Generated(r.id, "", "stop", 1, 1) for r in asked}).samples
    ]
    scoring = reasoned.score(
        {
            request.id: Generated(request.id, text.format(target), reason, 5, 9)
            for request, text, target, reason in zip(asked, texts, targets, ("stop", "length"), strict=True)
        }
    )
    right, cut_off = scoring.samples
    assert right.reasoning == ("I add.\n\nThen I look again.",)
    assert right.texts == (f"{targets[0]} ",)
    assert (right.value, right.truncated) == (1.0, False)
    assert (cut_off.texts, cut_off.reasoning, cut_off.truncated) == (("thinking on and on",), (), True)
