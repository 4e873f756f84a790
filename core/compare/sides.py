"""The two sides of a comparison: models, one model at a revision, or whole campaigns, named as a person names them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import UserError, nearest
from core.results import Store

CAMPAIGN = "campaign:"

Cells = dict[str, str]  # benchmark → fingerprint
Records = Mapping[str, Mapping[str, Any]]  # commit records by fingerprint


@dataclass(frozen=True)
class Side:
    """The meaning of one name: complete cells of models, ``models`` by name, each by benchmark."""

    name: str
    models: dict[str, Cells]


@dataclass(frozen=True)
class _AskedCell:
    """A cell as a run asked for it; without a campaign where none did."""

    campaign: str | None
    model: str
    benchmark: str
    fingerprint: str


def side(
    name: str, runs: Sequence[Mapping[str, Any]], records: Records, campaign: str | None = None, argument: str = "A"
) -> Side:
    """Return what ``name`` stands for among runs and commit records (`core.results.Store`), of ``campaign`` alone if given.

    ``MODEL``, ``MODEL@REVISION`` (the start of a revision or of a checkpoint's digest), ``campaign:NAME`` (its newest run),
    ``campaign:NAME@RUN`` (the start of a run's id), or ``NAME`` of a campaign that no model shares. Of several cells of one model
    and benchmark the one of the newest run counts, then the one committed last. Raises `core.errors.UserError` naming
    ``argument`` where nothing matches.
    """
    asked = list(_asked(runs, records, campaign))
    models = {each.model for each in asked}
    campaigns = {each.campaign for each in asked if each.campaign is not None}
    plain, _, version = name.rpartition("@") if "@" in name else (name, "", "")
    if not name.startswith(CAMPAIGN):
        if plain in models:
            return Side(name, {plain: _of_model(plain, version, asked, records, argument)})
        if plain not in campaigns:
            raise UserError(f"{argument} = {name!r}: no such model or campaign{_known(plain, {*models, *campaigns})}")
    plain = plain.removeprefix(CAMPAIGN)
    if plain not in campaigns:
        raise UserError(f"{argument} = {name!r}: no such campaign{_known(plain, campaigns)}")
    cells = {run["run"]: cells_of(run, records) for run in _newest_first(runs) if run["campaign"] == plain}
    complete = {run: models for run, models in cells.items() if models}
    found = [models for run, models in complete.items() if run.startswith(version)]
    if not found:
        raise UserError(f"{argument} = {name!r}: no such run; it has {', '.join(sorted(complete))}")
    return Side(name, found[0])


def asked_cells(runs: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the fingerprints that runs ask for."""
    return {cell for run in runs for model in run["models"] for cell in model["cells"].values()}


def cells_of(run: Mapping[str, Any], records: Records) -> dict[str, Cells]:
    """Return the complete cells that a run asks for, by model."""
    models: dict[str, Cells] = {}
    for model in run["models"]:
        for benchmark, fingerprint in model["cells"].items():
            if fingerprint in records:
                models.setdefault(model["model"], {}).setdefault(benchmark, fingerprint)
    return models


def changed_cells(before: Cells, after: Cells) -> dict[str, tuple[str, str]]:
    """Return the two cells of each benchmark that both have, where they are not the same one."""
    shared = (name for name in sorted(before) if name in after)
    return {name: (before[name], after[name]) for name in shared if before[name] != after[name]}


def runs_and_records(store: Store, campaign: str | None) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Read the runs and commit records of a campaign, or of all. Raises `core.errors.UserError` for a campaign there is not."""
    runs = store.campaigns(campaign)
    if campaign is not None and not runs:
        known = {run["campaign"] for run in store.campaigns()}
        raise UserError(f"--campaign {campaign!r}: no such campaign{_known(campaign, known)}")
    return runs, store.commit_records(None if campaign is None else asked_cells(runs))


def model_pairs(a: Side, b: Side) -> list[tuple[str, str]]:
    """Return which model of ``a`` stands against which of ``b``: the only two there are, else those of one name.

    Raises `core.errors.UserError` where no two do.
    """
    if len(a.models) == 1 and len(b.models) == 1:
        return [(next(iter(a.models)), next(iter(b.models)))]
    shared = [model for model in a.models if model in b.models]
    if not shared:
        names = (", ".join(sorted(each.models)) for each in (a, b))
        raise UserError(f"{a.name!r} has {next(names)} and {b.name!r} has {next(names)}: name two models")
    return [(model, model) for model in shared]


def _newest_first(runs: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(runs, key=lambda run: str(run["run"]), reverse=True)


def _asked(runs: Sequence[Mapping[str, Any]], records: Records, campaign: str | None) -> Iterator[_AskedCell]:
    """Yield complete cells, the newest run's first; cells that no run asks for last, the newest of them first."""
    named = set()
    for run in _newest_first(runs):
        for model in run["models"]:
            for benchmark, fingerprint in model["cells"].items():
                named.add(fingerprint)
                if fingerprint in records and campaign in (None, run["campaign"]):
                    yield _AskedCell(run["campaign"], model["model"], benchmark, fingerprint)
    if campaign is None:
        for record in sorted(records.values(), key=lambda each: each["committed"], reverse=True):
            if record["fingerprint"] not in named:
                yield _AskedCell(None, record["model"], record["benchmark"], record["fingerprint"])


def _of_model(model: str, version: str, asked: Iterable[_AskedCell], records: Records, argument: str) -> Cells:
    cells: Cells = {}
    revisions = set()
    for each in asked:
        if each.model != model:
            continue
        settings = records[each.fingerprint]["settings"]
        known = [str(settings[key]) for key in ("revision", "checkpoint") if settings.get(key)]
        revisions.update(known[:1])
        if not version or any(
            text.removeprefix("sha256:").startswith(version.removeprefix("sha256:")) for text in known
        ):
            cells.setdefault(each.benchmark, each.fingerprint)
    if not cells:
        raise UserError(f"{argument} = '{model}@{version}': no such revision; it has {', '.join(sorted(revisions))}")
    return cells


def _known(name: str, names: Iterable[str]) -> str:
    listed = sorted(names)
    return nearest(name, listed) or (f"; there are {', '.join(listed)}" if listed else "; no results are complete yet")
