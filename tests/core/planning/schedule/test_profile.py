from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st

from core.planning.schedule.jobs import Option
from core.planning.schedule.profile import Profile, TimeSlot
from tests.core.planning.schedule.scheduling import node, option

NODES = [node("n0", 4), node("n1", 2)]
Held = dict[str, list[float]]
held = st.fixed_dictionaries(
    {
        "n0": st.lists(st.integers(1, 20).map(float), max_size=4),
        "n1": st.lists(st.integers(1, 20).map(float), max_size=2),
    }
)


def brute(busy: Held, slots: list[TimeSlot], wanted: Option, seconds: float) -> float:
    """Earliest second at which enough groups are free for as long, by looking at every second."""

    def free(name: str, gpus: int, moment: float) -> int:
        taken = sum(ends > moment for ends in busy[name])
        taken += sum(
            groups * slot.option.tensor_parallel
            for slot in slots
            for place, groups in slot.groups
            if place == name and slot.start <= moment < slot.ends
        )
        return gpus - taken

    for start in range(1000):
        moments = [float(start + ahead) for ahead in range(int(seconds))]
        groups = sum(
            max(0, min(free(each.name, each.gpus, moment) for moment in moments)) // wanted.tensor_parallel
            for each in NODES
        )
        if groups >= wanted.stages:
            return float(start)
    return inf


wishes = st.lists(
    st.tuples(st.sampled_from([(1, 1), (2, 1), (4, 1), (1, 3), (2, 2), (2, 3)]), st.integers(1, 15)), max_size=8
)


@given(held, wishes)
@settings(max_examples=150)
def test_a_slot_is_the_earliest_that_delays_no_other(busy: Held, wanted: list[tuple[tuple[int, int], int]]) -> None:
    profile = Profile(0.0, NODES, busy)
    slots: list[TimeSlot] = []
    for (width, stages), seconds in wanted:
        one = option(seconds, width, stages)
        slot = profile.best([one])
        assert slot is not None
        assert slot.start == brute(busy, slots, one, seconds)
        assert sum(groups for _, groups in slot.groups) == stages
        profile.take(slot)
        slots.append(slot)
    assert profile.idle == 6 - len(busy["n0"]) - len(busy["n1"]) - sum(
        slot.option.gpus for slot in slots if slot.start == 0
    )


def test_what_no_node_can_hold_has_no_slot() -> None:
    profile = Profile(0.0, NODES, {})
    assert profile.best([option(5, 5)]) is None
    assert profile.best([option(5, 4)]) is not None


def test_of_several_ways_the_one_that_ends_first_is_taken() -> None:
    profile = Profile(0.0, NODES, {"n0": [30.0] * 4, "n1": []})
    wide, narrow = option(10, 4), option(50, 1)
    slot = profile.best([wide, narrow])
    assert slot is not None
    assert (slot.option, slot.start) == (wide, 30)
    at_once = profile.at_once([wide, narrow])
    assert at_once is not None
    assert (at_once.option, at_once.start) == (narrow, 0)


def test_the_fullest_node_is_taken() -> None:
    slot = Profile(0.0, NODES, {}).best([option(5)])
    assert slot is not None
    assert slot.groups == (("n1", 1),)
