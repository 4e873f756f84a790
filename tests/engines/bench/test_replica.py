from engines.bench.replica import Stall


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_only_work_without_progress_counts() -> None:
    clock = Clock()
    stall = Stall(60, clock)
    clock.now = 1000
    assert not stall.over(1, working=False)  # nothing to do
    clock.now = 1050
    assert not stall.over(1, working=True)
    clock.now = 1059
    assert not stall.over(2, working=True)  # progress
    clock.now = 1118
    assert not stall.over(2, working=True)
    clock.now = 1119
    assert stall.over(2, working=True)
    assert not stall.over(3, working=True)
