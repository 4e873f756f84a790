import pytest

from core.planning.cost.estimate import CampaignEstimate
from core.planning.cost.model import PastError
from core.planning.describe import campaign_lines
from core.tables import duration

WHOLE = CampaignEstimate((), (60.0, 120.0, 7200.0), (1.0, 2.0, 3.0), (2.5, 5.0, 7.5))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "0.2 s"),
        (42, "42 s"),
        (120, "2.0 min"),
        (2400, "40 min"),
        (9000, "2.5 h"),
        (90_000, "25 h"),
        (432_000, "5.0 d"),
    ],
)
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_campaign_in_time_gpu_hours_and_money() -> None:
    assert campaign_lines(WHOLE, None, 0) == [
        "Campaign: 2.0 min (60 s – 2.0 h), 2.00 (1.00 – 3.00) GPU-hours, cost 5.00 (2.50 – 7.50)",
        "No past run in the store to learn from: priors alone.",
    ]


def test_what_is_known_of_past_estimates() -> None:
    assert campaign_lines(WHOLE, None, 4)[1] == (
        "Learnt from 4 past runs of models, none early enough to have foretold another."
    )
    assert campaign_lines(WHOLE, PastError((0.1, 0.3, 0.2), 1), 4)[1] == (
        "Past estimates were off by 20% in the median over 3 runs of a model "
        "(1 as stored before the run, others by what the store held before)."
    )
