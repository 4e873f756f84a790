"""Files of runs in a results store, beside their cells: manifests, timelines, reports, and canary sets with their findings."""

from __future__ import annotations

import json
import logging
import secrets
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from core.monitor.timeline import Span
from core.request import Response
from core.storage.storage import Storage, path_part
from core.store.schema import (
    RESPONSES,
    SCHEMA_VERSION,
    TABLE_KEY,
    VERSION_KEY,
    decode,
    encode,
    responses_of,
    responses_table,
)

log = logging.getLogger("steelyard.results")

_TIME = pa.timestamp("us", tz="UTC")
TIMELINE = pa.schema(
    [
        pa.field("host", pa.string(), nullable=False),  # whose clock it is
        pa.field("model", pa.string(), nullable=False),  # whose spans they are
        pa.field("part", pa.string(), nullable=False),  # benchmarks, judge or canary
        pa.field("engine", pa.string(), nullable=False),  # lightweight or distributed
        pa.field("phase", pa.string(), nullable=False),  # core.monitor.timeline.PHASES, or PLAN
        pa.field("benchmark", pa.string(), nullable=False),  # empty where it is not of one benchmark
        pa.field("started", _TIME, nullable=False),  # by the host's clock
        pa.field("ended", _TIME, nullable=False),  # alike
    ],
    metadata={VERSION_KEY: SCHEMA_VERSION.encode(), TABLE_KEY: b"timeline"},
)


class Runs:
    """Files of a store that belong to runs. Every method raises `core.errors.StoreError` where the storage fails."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.uri = storage.uri

    def write_model_run(self, campaign: str, run: str, model: Mapping[str, Any]) -> None:
        """Store the cells that one model's part of a run asks for, before they are computed: a run cut short is still known.

        JSON values; at least ``model`` and ``cells``: benchmark → fingerprint. With ``judge`` the cells are that model's verdicts.
        Where the part failed, ``failures`` has the reason of each cell that did, by benchmark, ``failure`` what failed beside them.
        """
        name = f"{model['model']}@{model['judge']}" if "judge" in model else model["model"]
        path = f"campaigns/{path_part(campaign)}/{path_part(run)}/{path_part(name)}.json"
        self._storage.put(path, json.dumps({**model, "campaign": campaign, "run": run}, indent=2).encode())

    def write_campaign(self, run: Mapping[str, Any]) -> None:
        """Store a run's manifest. JSON values; at least ``campaign`` and ``run``; also failures, timings, versions.

        ``models`` lists mappings as in `write_model_run`; what that wrote already need not be repeated.
        """
        path = f"campaigns/{path_part(run['campaign'])}/{path_part(run['run'])}.json"
        self._storage.put(path, json.dumps(dict(run), indent=2).encode())

    def campaigns(self, campaign: str | None = None) -> list[dict[str, Any]]:
        """Return all runs, or one campaign's, oldest first: manifests with ``models`` filled.

        A run that was cut short, or is under way, has its models alone.
        """
        folder = "campaigns" if campaign is None else f"campaigns/{path_part(campaign)}"
        runs: dict[tuple[str, str], dict[str, Any]] = {}
        for path, data in self._storage.read_many(self._storage.list(folder)).items():
            try:
                content = json.loads(data)
                run = runs.setdefault((content["run"], content["campaign"]), {"models": {}})
                models = [content] if "model" in content else content.pop("models", [])
                run["models"].update(((model["model"], model.get("judge")), model) for model in models)
                if "model" not in content:
                    run.update(content)
            except (ValueError, KeyError, TypeError) as error:
                log.warning("%s/%s is not used: no manifest (%r)", self.uri, path, error)
        return [
            {**run, "run": name, "campaign": campaign, "models": list(run["models"].values())}
            for (name, campaign), run in sorted(runs.items())
        ]

    def write_timeline(self, campaign: str, run: str, spans: Sequence[Span]) -> None:
        """Store the spans of one model (`core.monitor.timeline`), in a file of its own."""
        if spans:
            name = f"{path_part(spans[0].model)}-{secrets.token_hex(8)}.parquet"
            data = encode(timeline_table(spans, socket.gethostname()))
            self._storage.put_new(f"timeline/campaign={path_part(campaign)}/run={path_part(run)}/{name}", data)

    def timeline(self, campaign: str, run: str | None = None) -> list[Span]:
        """Return the spans of a run, or of the campaign's newest that has any, in order of time.

        A file that is none of ours is warned about and left out.
        """
        paths = self._storage.list(f"timeline/campaign={path_part(campaign)}{f'/run={path_part(run)}' if run else ''}")
        newest = max((path.split("/")[2] for path in paths), default="")
        spans: list[Span] = []
        for path, data in self._storage.read_many([path for path in paths if path.split("/")[2] == newest]).items():
            try:
                spans += _spans_of(decode(data, TIMELINE))
            except ValueError as error:
                log.warning("%s/%s is not used: %s", self.uri, path, error)
        return sorted(spans, key=lambda span: (span.started, span.ended))

    def write_report(self, campaign: str, run: str, page: str) -> str:
        """Store a run's report (`core.report.html`) and return its URI; one that is there already is replaced."""
        path = f"reports/campaign={path_part(campaign)}/{path_part(run)}.html"
        self._storage.put(path, page.encode())
        return f"{self.uri}/{path}"

    def reports(self, campaign: str) -> list[str]:
        """Return the URIs of a campaign's reports, the oldest run's first."""
        return [f"{self.uri}/{path}" for path in sorted(self._storage.list(f"reports/campaign={path_part(campaign)}"))]


def timeline_table(spans: Sequence[Span], host: str) -> pa.Table:
    """Return one row per span."""
    texts = [[getattr(span, name) for span in spans] for name in TIMELINE.names[1:-2]]
    columns = [pa.array([host] * len(spans), pa.string()), *(pa.array(text, pa.string()) for text in texts)]
    for name in ("started", "ended"):
        columns.append(pa.array([round(getattr(span, name) * 1e6) for span in spans], pa.int64()).cast(_TIME))
    return pa.Table.from_arrays(columns, schema=TIMELINE)


def _spans_of(table: pa.Table) -> list[Span]:
    rows = table.drop_columns(["host", "started", "ended"]).to_pylist()
    times = [table[name].cast(pa.int64()).to_pylist() for name in ("started", "ended")]
    return [
        Span(**row, started=started / 1e6, ended=ended / 1e6) for row, started, ended in zip(rows, *times, strict=True)
    ]


def write_answers(storage: Storage, campaign: str, run: str, engine: str, responses: Iterable[Response]) -> None:
    """Store one engine's answers to the canary set."""
    storage.put(_answers_path(campaign, run, engine), encode(responses_table(responses)))


def read_answers(storage: Storage, campaign: str, run: str, engine: str) -> list[Response]:
    """Return one engine's answers to the canary set; none where there are none."""
    data = storage.read(_answers_path(campaign, run, engine))
    return [] if data is None else responses_of(decode(data, RESPONSES))


def write_finding(storage: Storage, key: str, finding: Mapping[str, Any]) -> None:
    """Store the finding of a canary set, as JSON values, under its `core.planning.canary.canary_key`."""
    storage.put(_finding_path(key), json.dumps(finding, indent=2).encode())


def read_finding(storage: Storage, key: str) -> dict[str, Any] | None:
    """Return what `write_finding` stored, or None."""
    data = storage.read(_finding_path(key))
    return None if data is None else json.loads(data)


def _answers_path(campaign: str, run: str, engine: str) -> str:
    return f"canaries/campaign={path_part(campaign)}/run={path_part(run)}/{path_part(engine)}.parquet"


def _finding_path(key: str) -> str:
    return f"canaries/{path_part(key)}.json"
