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
from core.store.quality import failed_docs

STATES = ("complete", "computing", "begun", "failed", "missing")


@dataclass(frozen=True)
class CellStatus:
    """One cell of a campaign's newest run.

    ``state`` is one of `STATES`: "computing" has a lease whose holder lives; "failed" is one that failed in that run, or whose
    model did; "begun" has stored responses and no living holder. ``responses`` counts those stored of a cell that is not complete,
    ``failed_samples`` a complete cell's docs without an answer, or without one that could be scored. ``detail`` is a failed cell's
    own reason. ``fingerprint`` is empty where no run has got that far.
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
        (name, run, entry, benchmark, fingerprint)
        for name, run in sorted(newest.items())
        for entry in run["models"]
        for benchmark, fingerprint in entry["cells"].items()
    ]
    records = store.commit_records({fingerprint for *_, fingerprint in asked})
    working = living_leases(open_storage(store.uri))
    rows = []
    for name, run, entry, benchmark, fingerprint in asked:
        reason = failure_of(run, entry, benchmark)
        state = _state(store, fingerprint, reason, records.get(fingerprint), working.get(fingerprint))
        rows.append(CellStatus(name, run["run"], entry["model"], benchmark, *state, fingerprint))
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
    fingerprint: str,
    reason: str | None,
    record: Mapping[str, Any] | None,
    lease: Lease | None,
) -> tuple[str, int, int, str]:
    """Return a cell's state, responses, failed samples and detail."""
    if record is not None:
        return "complete", 0, failed_docs(record), ""
    responses = len(store.responses(fingerprint))
    if lease is not None:
        who = " · ".join(str(lease.about[key]) for key in ("campaign", "model") if key in lease.about)
        return "computing", responses, 0, f"by {who or lease.holder} since {lease.since}"
    if reason:
        return "failed", responses, 0, reason
    return "begun" if responses else "missing", responses, 0, ""


def _not_asked_for(spec: CampaignSpec, run: Mapping[str, Any], rows: Iterable[CellStatus]) -> list[CellStatus]:
    known = {(row.model, row.benchmark) for row in rows if row.campaign == spec.name}
    entries = {entry["model"]: entry for entry in run.get("models", []) if "judge" not in entry}
    rows = []
    for model in spec.models:
        entry = entries.get(model.name, {"model": model.name})
        for label in map(benchmark_label, spec.benchmarks):
            if (model.name, label) not in known:
                reason = failure_of(run, entry, label)
                state = ("failed" if reason else "missing", 0, 0, reason or "")
                rows.append(CellStatus(spec.name, run.get("run", ""), model.name, label, *state, fingerprint=""))
    return rows


def failure_of(run: Mapping[str, Any], entry: Mapping[str, Any], benchmark: str) -> str | None:
    """Return why a cell of one model's part of a run failed: its own reason, or else its model's; None where neither did.

    ``entry`` is the part (`core.results.Store.write_model_run`). Where it tells cells' reasons, the model's is what failed beside
    them; one that was cut short, or is an older version's, has the run's alone.
    """
    if "failures" in entry:
        return entry["failures"].get(benchmark) or entry.get("failure")
    found: str | None = run.get("failures", {}).get(entry["model"])
    return found


def failed_cells(run: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the reasons of a run's failed cells by the model that failed, a judge under its own name, and benchmark.

    Models of which more than cells failed are left out.
    """
    found: dict[str, dict[str, str]] = {}
    for entry in (each for each in run["models"] if each.get("failures") and not each.get("failure")):
        judged = f"{entry['model']} · " if "judge" in entry else ""
        reasons = {f"{judged}{benchmark}": reason for benchmark, reason in entry["failures"].items()}
        found.setdefault(entry.get("judge", entry["model"]), {}).update(reasons)
    return found


def cell_lines(reasons: Mapping[str, str]) -> list[str]:
    """Return a line for each reason of failed cells; those that share one, as where their engine died, are named before it."""
    named: dict[str, list[str]] = {}
    for cell, reason in reasons.items():
        named.setdefault(reason, []).append(cell)
    return [f"{', '.join(cells)}: {reason}" for reason, cells in named.items()]


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
