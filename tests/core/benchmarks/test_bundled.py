"""The benchmarks that come with Steelyard: enough docs, no doc twice, and the generator still gives the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.benchmark import find as catalogue
from core.benchmark.benchmark import load_benchmark
from core.benchmarks import shapes
from core.benchmarks.generate import files
from core.benchmarks.hooks import pass_at_k
from core.campaign import BenchmarkSpec
from core.request import Generate, Generated, Loglikelihood, LoglikelihoodRolling, Request, Response, Scored

DOCS = {"steelyard_arithmetic": 240, "steelyard_facts": 230, "steelyard_letters": 230, "steelyard_prose": 24}
DOCS |= {"humaneval": 164, "steelyard_shapes": 96}


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (catalogue.BUNDLED / name).read_text(encoding="utf-8").splitlines()]


def test_every_bundled_benchmark_is_known_here() -> None:
    assert catalogue.bundled().keys() == DOCS.keys()


@pytest.mark.parametrize(("name", "content"), files().items(), ids=files().keys())
def test_the_generator_gives_the_files(name: str, content: str) -> None:
    assert (catalogue.BUNDLED / name).read_bytes() == content.encode()


@pytest.mark.parametrize("kind", ["arithmetic", "facts"])
def test_no_doc_comes_twice_nor_as_its_own_example(kind: str) -> None:
    docs = [doc["question"] for name in (f"{kind}.jsonl", f"{kind}_train.jsonl") for doc in rows(name)]
    assert len(docs) == len(set(docs))
    assert len(rows(f"{kind}.jsonl")) >= 200


def test_choices_differ_and_the_right_one_has_no_favourite_place() -> None:
    docs = rows("facts.jsonl")
    assert all(len(set(doc["choices"])) == 4 for doc in docs)
    places = [doc["answer"] for doc in docs]
    assert all(0.15 < places.count(place) / len(places) < 0.35 for place in range(4))


def oracle(request: Request, doc: dict[str, Any], *, right: bool) -> Response:
    """Answer as somebody who knows, or as somebody who is always wrong."""
    match request:
        case Generate():
            text = doc["canonical_solution"] if "canonical_solution" in doc else f" {doc['answer']}"
            return Generated(request.id, text if right else " none", "stop", 1, 1)
        case Loglikelihood(continuation=continuation):
            letters = request.id.startswith("steelyard_letters/")
            wanted = ("ABCD" if letters else doc["choices"])[doc["answer"]]
            return Scored(request.id, 0.0 if (continuation.strip() == wanted) is right else -9.0, False, 1, 1)
        case LoglikelihoodRolling():
            return Scored(request.id, -1.0, False, 1, 1)


SLOW = {"humaneval"}  # runs 328 programs; what runs them is tested in test_sandbox


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in DOCS]
)
def test_who_knows_scores_one_and_who_does_not_scores_nought(name: str) -> None:
    benchmark = load_benchmark(BenchmarkSpec(name=name), chat=None, seed=0, image_token=lambda: "<image>")
    assert benchmark.docs == DOCS[name]
    if name == "steelyard_prose":
        return
    docs = docs_of(name)
    for right in (True, False):
        responses = {r.id: oracle(r, docs[int(r.id.split("/")[1])], right=right) for r in benchmark.requests()}
        assert benchmark.score(responses).headline.value == right


def docs_of(name: str) -> list[dict[str, Any]]:
    match name:
        case "humaneval":
            return humaneval()
        case "steelyard_shapes":
            return list(shapes.rows()["test"])
        case "steelyard_arithmetic":
            return rows("arithmetic.jsonl")
    return rows("facts.jsonl")


def humaneval() -> list[dict[str, Any]]:
    from core.benchmarks.hooks import humaneval_rows

    return list(humaneval_rows()["test"])


def test_pass_at_k_is_the_share_of_draws_with_a_pass() -> None:
    assert pass_at_k(10, 3, 1) == pytest.approx(0.3)
    assert pass_at_k(4, 1, 2) == pytest.approx(0.5)  # 3 of the 6 pairs hold the one that passed
    assert pass_at_k(5, 0, 5) == 0.0
    assert pass_at_k(5, 1, 5) == 1.0


def test_several_samples_give_pass_at_10() -> None:
    spec = BenchmarkSpec(name="humaneval", repeats=10, limit=2)
    benchmark = load_benchmark(spec, chat=None, seed=0)
    docs = humaneval()
    responses = {
        request.id: oracle(request, docs[int(request.id.split("/")[1])], right=number % 10 == 0)
        for number, request in enumerate(benchmark.requests())
    }
    scores = {score.metric: score.value for score in benchmark.score(responses).scores}
    assert scores == {"pass@1": pytest.approx(0.1), "pass@5": pytest.approx(0.5), "pass@10": 1.0}


def test_own_example_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[3])
    benchmark = load_benchmark(BenchmarkSpec(name="examples/own_benchmark.yaml"), chat=None, seed=0)
    assert benchmark.docs == 5


def test_a_picture_shows_what_its_doc_says() -> None:
    docs = docs_of("steelyard_shapes")
    for doc in docs:
        (picture,) = shapes.draw(doc)
        assert picture.mode == "RGB"
        assert all(64 <= side <= 128 for side in picture.size)
        for figure in doc["figures"]:
            assert picture.getpixel((figure["x"], figure["y"])) == shapes.COLOURS[figure["colour"]]
        shown = {colour for _, colour in picture.getcolors(picture.width * picture.height)}
        assert len(shown) == 1 + len({figure["colour"] for figure in doc["figures"]})
    assert len({shapes.draw(doc)[0].tobytes() for doc in docs}) == len(docs)
    assert [shapes.draw(doc)[0].tobytes() for doc in docs_of("steelyard_shapes")] == [
        shapes.draw(doc)[0].tobytes() for doc in docs
    ]


def test_the_answer_of_a_doc_is_what_its_picture_shows() -> None:
    for doc in docs_of("steelyard_shapes"):
        question, answer, figures = doc["question"], doc["answer"], doc["figures"]
        if question.startswith("How many"):
            assert answer == str(len(figures))
        elif question.startswith("Which shape is in"):
            assert [figure["shape"] for figure in figures] == [answer]
        else:
            asked = [figure for figure in figures if "the shape" in question or f"the {figure['shape']}" in question]
            assert [figure["colour"] for figure in asked] == [answer]
        assert answer in doc["choices"]


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("star", 1),
        (" A STAR.", 1),
        ("The shape is a red star", 1),
        ("square", 0),
        ("star or square", 0),
        ("", 0),
        ("stars", 0),
    ],
)
def test_an_answer_names_the_right_choice_and_no_other(answer: str, right: int) -> None:
    doc = {"choices": ["circle", "square", "star"], "answer": "star"}
    assert shapes.results(doc, [answer]) == {"acc": right}
    assert shapes.results({"choices": ["1", "2"], "answer": "2"}, ["There are two."]) == {"acc": 1}
