import re
from functools import partial
from pathlib import Path

from core.planning.schedule.bound import lower_bound
from core.planning.schedule.gantt import gantt_figure, write_gantt
from core.planning.schedule.scheduler import SchedulingPolicy, decide
from core.planning.schedule.simulate import simulate
from tests.core.planning.schedule.scheduling import job, node

NODES = [node("n0", 2), node("n1", 2)]
JOBS = [job("gang<b>", 7200, gpus=2), job("small", 3600)]
RUN = simulate(NODES, JOBS, partial(decide, policy=SchedulingPolicy()))
BOUND = lower_bound(NODES, JOBS)


def test_a_bar_for_each_gpu_of_a_job_in_hours() -> None:
    figure = gantt_figure({"ours": RUN}, NODES, BOUND)
    bars = {trace.name: trace for trace in figure.data}
    assert set(bars) == {"1", "2"}
    assert list(bars["2"].x) == [2.0, 2.0]
    assert list(bars["2"].base) == [0.0, 0.0]
    assert len({*bars["2"].y, *bars["1"].y}) == 3
    assert figure.layout.shapes[0].x0 == 2.0


def test_names_are_escaped() -> None:
    figure = gantt_figure({"ours": RUN}, NODES, BOUND)
    assert all("<b>" not in told for trace in figure.data for told in trace.customdata)
    assert all("<b>" not in text for trace in figure.data for text in trace.text)


def test_the_file_asks_no_network(tmp_path: Path) -> None:
    write_gantt(tmp_path / "gantt.html", {"ours": RUN, "other": RUN}, NODES, BOUND)
    page = (tmp_path / "gantt.html").read_text()
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=[\"']?(https?:)?//", page)
