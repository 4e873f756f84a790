"""The status of each campaign's cells in a results store: complete, computing, begun, failed or missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from core.campaign import CampaignSpec, benchmark_label
from core.results import Store
from core.storage.open import open_storage
from core.storage.storage import Storage
from core.store.lease import EXPIRES_SECONDS, Lease, Watch, read_leases

STATES = ("complete", "computing", "begun", "failed", "missing")


@dataclass(frozen=True)
class CellStatus:
    """One cell of a campaign's newest run.

    ``state`` is one of `STATES`: "computing" has a lease whose holder lives; "failed" is one whose model failed in that run;
    "begun" has stored responses and no living holder. ``responses`` counts those stored of a cell that is not complete,
    ``failed_samples`` a complete cell's docs without an answer. ``fingerprint`` is empty where no run has got that far.
    """

    campaign: str
    run: str
    model: str
    benchmark: str
    state: str
    responses: int
    failed_samples: int
    detail: str
    fingerprint: str


def statuses(store: Store, campaign: str | None = None, spec: CampaignSpec | None = None) -> list[CellStatus]:
    """Return the cells of each campaign's newest run, or of one campaign's; with ``spec`` those too that no run has asked for.

    Raises `core.errors.StoreError` where the store cannot be read.
    """
    newest = {run["campaign"]: run for run in store.campaigns(campaign)}
    asked = [
        (name, run, entry["model"], benchmark, fingerprint)
        for name, run in sorted(newest.items())
        for entry in run["models"]
        for benchmark, fingerprint in entry["cells"].items()
    ]
    records = store.commit_records({fingerprint for *_, fingerprint in asked})
    working = living_leases(open_storage(store.uri))
    rows = []
    for name, run, model, benchmark, fingerprint in asked:
        state = _state(store, run, model, fingerprint, records.get(fingerprint), working.get(fingerprint))
        rows.append(CellStatus(name, run["run"], model, benchmark, *state, fingerprint))
    if spec is not None:
        rows += _not_asked_for(spec, newest.get(spec.name, {}), rows)
    return rows


def summary(rows: Iterable[CellStatus]) -> str:
    """Count cells by state, in words."""
    listed = list(rows)
    counts = Counter(row.state for row in listed)
    words = [f"{counts[state]} {state}" for state in STATES[1:] if counts[state]]
    if failed := sum(row.failed_samples > 0 for row in listed):
        words.append(f"{failed} with failed samples")
    return ", ".join([f"{counts['complete']} of {len(listed)} cells complete", *words])


def _state(
    store: Store,
    run: Mapping[str, Any],
    model: str,
    fingerprint: str,
    record: Mapping[str, Any] | None,
    lease: Lease | None,
) -> tuple[str, int, int, str]:
    """Return a cell's state, responses, failed samples and detail."""
    if record is not None:
        return "complete", 0, int(record["metadata"].get("quality", {}).get("failed", 0)), ""
    responses = len(store.responses(fingerprint))
    if lease is not None:
        who = " · ".join(str(lease.about[key]) for key in ("campaign", "model") if key in lease.about)
        return "computing", responses, 0, f"by {who or lease.holder} since {lease.since}"
    if reason := run.get("failures", {}).get(model):
        return "failed", responses, 0, reason
    return "begun" if responses else "missing", responses, 0, ""


def _not_asked_for(spec: CampaignSpec, run: Mapping[str, Any], rows: Iterable[CellStatus]) -> list[CellStatus]:
    known = {(row.model, row.benchmark) for row in rows if row.campaign == spec.name}
    failures = run.get("failures", {})
    rows = []
    for model in spec.models:
        state = ("failed" if model.name in failures else "missing", 0, 0, failures.get(model.name, ""))
        for label in map(benchmark_label, spec.benchmarks):
            if (model.name, label) not in known:
                rows.append(CellStatus(spec.name, run.get("run", ""), model.name, label, *state, fingerprint=""))
    return rows


def living_leases(storage: Storage) -> dict[str, Lease]:
    """Return the leases whose holders live, by fingerprint."""
    leases = sorted(read_leases(storage), key=lambda lease: lease.generation)
    watch = Watch(storage)
    silences = {holder: watch.silence(holder) for holder in {lease.holder for lease in leases}}
    return {
        lease.fingerprint: lease
        for lease in leases
        if (silence := silences[lease.holder]) is not None and silence <= EXPIRES_SECONDS
    }
