import pytest

from core.monitor.progress import DocCounter, Progress, format_seconds


def progress(**changes: object) -> Progress:
    fields = {"docs": 10, "done": 0, "resumed": 0, "tokens": 0, "seconds": 0.0, **changes}
    return Progress(model="m", benchmark="b", **fields)  # type: ignore[arg-type]


def test_a_doc_counts_once_all_its_requests_are_answered() -> None:
    counter = DocCounter(["t/0/0/0", "t/0/1/0", "t/1/0/0", "group/t/1/0/0"])
    assert counter.docs == 3
    counter.answer("t/0/1/0")
    assert counter.done == 0
    counter.answer("t/0/0/0")
    assert counter.done == 1
    counter.answer("group/t/1/0/0")
    assert counter.done == 2


def test_the_time_left_follows_this_runs_pace() -> None:
    assert progress(done=6, resumed=4, seconds=8.0).seconds_left == 16.0
    assert progress(done=4, resumed=4, seconds=8.0).seconds_left is None


def test_it_reads_as_a_person_says_it() -> None:
    assert str(progress(done=6, resumed=4, seconds=8.0, tokens=12_000)) == "6/10 docs, 1,500 tokens/s, 16 s left"
    assert str(progress(done=10, seconds=8.0, tokens=8, ended=True)) == "10/10 docs, 1 tokens/s"


def test_a_benchmark_without_docs_is_done() -> None:
    assert progress(docs=0).share == 1.0


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (61, "1 min 1 s"), (7800, "2 h 10 min")])
def test_durations_are_short(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
