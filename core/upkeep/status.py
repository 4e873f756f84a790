"""What a results store holds of each campaign: complete cells, those under way or begun, and those that are missing."""

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
    "begun" has stored responses and nobody at work. ``responses`` counts those stored of a cell that is not complete,
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
    rows = [
        _status(store, name, run, model, benchmark, fingerprint, records.get(fingerprint), working.get(fingerprint))
        for name, run, model, benchmark, fingerprint in asked
    ]
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


def _status(
    store: Store,
    campaign: str,
    run: Mapping[str, Any],
    model: str,
    benchmark: str,
    fingerprint: str,
    record: Mapping[str, Any] | None,
    lease: Lease | None,
) -> CellStatus:
    def status(state: str, responses: int = 0, failed: int = 0, detail: str = "") -> CellStatus:
        return CellStatus(campaign, run["run"], model, benchmark, state, responses, failed, detail, fingerprint)

    if record is not None:
        return status("complete", failed=int(record["metadata"].get("quality", {}).get("failed", 0)))
    responses = len(store.responses(fingerprint))
    if lease is not None:
        who = " · ".join(str(lease.about[key]) for key in ("campaign", "model") if key in lease.about)
        return status("computing", responses, detail=f"by {who or lease.holder} since {lease.since}")
    if reason := run.get("failures", {}).get(model):
        return status("failed", responses, detail=reason)
    return status("begun" if responses else "missing", responses)


def _not_asked_for(spec: CampaignSpec, run: Mapping[str, Any], rows: Iterable[CellStatus]) -> list[CellStatus]:
    known = {(row.model, row.benchmark) for row in rows if row.campaign == spec.name}
    failures = run.get("failures", {})
    return [
        CellStatus(
            campaign=spec.name,
            run=run.get("run", ""),
            model=model.name,
            benchmark=label,
            state="failed" if model.name in failures else "missing",
            responses=0,
            failed_samples=0,
            detail=failures.get(model.name, ""),
            fingerprint="",
        )
        for model in spec.models
        for label in map(benchmark_label, spec.benchmarks)
        if (model.name, label) not in known
    ]


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
