"""Charts of the HTML report, as figures of plotly in JSON values. Pure."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from core.monitor.timeline import PLAN, Lane, timeline_rows

# Okabe and Ito's colours, told apart by everybody, on light and on dark
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c8c", "#b3a500")
PHASE_COLOURS = {
    "plan": "rgba(140, 140, 140, 0.3)",  # drawn first, behind what happened
    "prepare": "#56b4e9",
    "wait": "#8c8c8c",
    "load": "#e69f00",
    "generate": "#009e73",
    "idle": "#d55e00",
    "score": "#cc79a7",
    "store": "#0072b2",
    "close": "#b3a500",
}
AXES = (
    ("size", "weight_gb", "weights as loaded, GB"),
    ("tokens", "tokens", "prompt and completion tokens"),
    ("GPU-seconds", "gpu_seconds", "GPU-seconds in which requests ran"),
    ("cost", "cost", "cost of those GPU-seconds"),
)


@dataclass(frozen=True)
class Chart:
    """A figure, or several to choose from ``by`` something: views of (name, data, layout)."""

    id: str
    title: str
    by: str
    caption: str
    views: list[dict[str, Any]] = field(default_factory=list)


def charts(rows: Sequence[Mapping[str, Any]], timelines: Mapping[str, Sequence[Lane]]) -> list[Chart]:
    """Return the charts that there are numbers for.

    ``rows`` are the leaderboard's, ranked (`core.board.text.leaderboard_rows`), with the facts of `core.board.select`,
    ``cost`` and ``tokens``; ``timelines`` has the lanes of each campaign.
    """
    found = [_scores(rows), _heat_map(rows), _against(rows), _timeline(timelines)]
    return [chart for chart in found if chart.views]


def _name(text: Any) -> str:
    return html.escape(str(text), quote=False)  # plotly reads tags in texts


def _by_benchmark(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["score"] is not None:
            grouped.setdefault(row["benchmark"], []).append(row)
    return grouped


def _scores(rows: Sequence[Mapping[str, Any]]) -> Chart:
    chart = Chart("chart-scores", "Scores", "Benchmark", "Score with its 95% interval, the best model on top.")
    for benchmark, listed in _by_benchmark(rows).items():
        best_last = listed[::-1]
        scores = [row["score"] for row in best_last]
        bounds = [_bounds(row) for row in best_last]
        names, letters = ([_name(row[key] or "") for row in best_last] for key in ("model", "letters"))
        data = _points(scores, names, letters, "%{y}: %{x:.4f} %{text}<extra></extra>", color=COLOURS[0])
        data["error_x"] = {
            "type": "data",
            "symmetric": False,
            "array": [high - score for score, (_, high) in zip(scores, bounds, strict=True)],
            "arrayminus": [score - low for score, (low, _) in zip(scores, bounds, strict=True)],
        }
        layout = {
            "height": 120 + 26 * len(listed),
            "xaxis": {"title": {"text": _name(listed[0]["metric"])}},
            "yaxis": {"type": "category"},
        }
        chart.views.append({"name": benchmark, "data": [data], "layout": layout})
    return chart


def _points(x: list[Any], y: list[Any], text: list[str], hover: str, **marker: Any) -> dict[str, Any]:
    points = {"type": "scatter", "mode": "markers", "x": x, "y": y, "text": text, "hovertemplate": hover}
    return points | {"marker": {"size": 9, **marker}}


def _bounds(row: Mapping[str, Any]) -> tuple[float, float]:
    """Return the interval; two standard errors where there is none; nothing where there is none of those either."""
    score = row["score"]
    if row.get("low") is not None and row.get("high") is not None:
        return row["low"], row["high"]
    half = 1.96 * (row["stderr"] or 0.0)
    return score - half, score + half


def _heat_map(rows: Sequence[Mapping[str, Any]]) -> Chart:
    caption = "Colour: from the worst score of a benchmark (0) to its best (1); the number is the score. Best on average on top."
    chart = Chart("chart-heat", "Models and benchmarks", "", caption)
    grouped = _by_benchmark(rows)
    places: dict[str, list[float]] = {}
    for listed in grouped.values():
        for row in listed:
            places.setdefault(row["model"], []).append(_place(row, listed))
    if not places:
        return chart
    models = sorted(places, key=lambda model: (fmean(places[model]), model))
    colours, texts = [], []
    for model in models:
        cells = [next((row for row in listed if row["model"] == model), None) for listed in grouped.values()]
        colours.append([None if row is None else _place(row, grouped[row["benchmark"]]) for row in cells])
        texts.append(["" if row is None else f"{row['score']:.3f}" for row in cells])
    data = {
        "type": "heatmap",
        "x": [_name(benchmark) for benchmark in grouped],
        "y": [_name(model) for model in models],
        "z": colours,
        "text": texts,
        "texttemplate": "%{text}",
        "colorscale": "Viridis",
        "hovertemplate": "%{y}, %{x}: %{text}<extra></extra>",
        "xgap": 1,
        "ygap": 1,
    }
    layout = {"height": 160 + 26 * len(models), "xaxis": {"type": "category"}, "yaxis": {"type": "category"}}
    chart.views.append({"name": "", "data": [data], "layout": layout})
    return chart


def _place(row: Mapping[str, Any], listed: Sequence[Mapping[str, Any]]) -> float:
    scores = [each["score"] for each in listed]
    spread = max(scores) - min(scores)
    share = (row["score"] - min(scores)) / spread if spread else 1.0
    return share if row["higher_is_better"] or not spread else 1.0 - share


def _against(rows: Sequence[Mapping[str, Any]]) -> Chart:
    caption = "One point a model and benchmark; a click on a benchmark's name hides it. Where benchmarks ran side by side on one "
    caption += "engine, each counts the GPU-seconds."
    chart = Chart("chart-against", "Score against what it takes", "Against", caption)
    for name, column, title in AXES:
        data = []
        for number, (benchmark, listed) in enumerate(_by_benchmark(rows).items()):
            known = [row for row in listed if _is_positive(row.get(column))]
            if known:
                x, y, models = ([row[key] for row in known] for key in (column, "score", "model"))
                hover = "%{text}: %{y:.4f} at %{x:.4g}<extra>%{fullData.name}</extra>"
                symbol, colour = divmod(number, len(COLOURS))
                points = _points(x, y, list(map(_name, models)), hover, color=COLOURS[colour], symbol=symbol)
                data.append(points | {"name": _name(benchmark)})
        layout = {
            "height": 420,
            "xaxis": {"type": "log", "title": {"text": title}},
            "yaxis": {"title": {"text": "score"}},
            "showlegend": True,
        }
        if data:
            chart.views.append({"name": name, "data": data, "layout": layout})
    return chart


def _is_positive(value: Any) -> bool:
    return value is not None and not math.isnan(value) and value > 0


def _timeline(timelines: Mapping[str, Sequence[Lane]]) -> Chart:
    caption = (
        "What each model did when, in seconds since the first thing that happened; idle: loaded, and no request runs; "
        "plan: when it was expected to have its devices, as if nothing were stored yet."
    )
    chart = Chart("chart-timeline", "Timeline", "Campaign", caption)
    for campaign, found in timelines.items():
        spans = timeline_rows(found)
        data = []
        for phase, colour in PHASE_COLOURS.items():
            own = [span for span in spans if span["phase"] == phase]
            if own:
                data.append(
                    {
                        "type": "bar",
                        "orientation": "h",
                        "name": phase,
                        "base": [round(span["start"], 3) for span in own],
                        "x": [round(span["end"] - span["start"], 3) for span in own],
                        "y": [_name(span["lane"]) for span in own],
                        "text": [_name(span["benchmark"]) for span in own],
                        "textposition": "none",
                        "hovertemplate": "%{y}: %{fullData.name} %{text}, %{x:.1f} s from %{base:.1f} s<extra></extra>",
                        "marker": {"color": colour},
                        "width": 0.95 if phase == PLAN else 0.6,
                    }
                )
        layout = {
            "height": 140 + 34 * len(found),
            "barmode": "overlay",
            "bargap": 0.25,
            "xaxis": {"title": {"text": "seconds"}},
            "yaxis": {"type": "category", "autorange": "reversed"},
            "showlegend": True,
        }
        if data:
            chart.views.append({"name": campaign, "data": data, "layout": layout})
    return chart
