"""Commands about a results store: what is in it, having cells computed again, bringing in a spool, clearing up."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from core.campaign import load_spec
from core.errors import UserError
from core.results import open_store
from core.visible import one_line
from deployments.console import (
    SpecPath,
    StoreArgument,
    check_format,
    configure,
    print_columns,
    print_rows,
    say,
    store_of,
)

Yes = Annotated[bool, typer.Option("--yes", help="Do it; without, only say what would be done.")]


def status(
    store: StoreArgument,
    campaign: Annotated[str | None, typer.Option(help="Only this campaign.")] = None,
    format: Annotated[
        str, typer.Option(help="table, csv or json; the latter two have the complete cells too.")
    ] = "table",
) -> None:
    """Show which cells are complete, computed at the moment, begun, failed or missing."""
    from core.upkeep.status import statuses, summary

    check_format(format, ("table", "csv", "json"))
    uri, spec = store_of(store)
    rows = statuses(open_store(uri), campaign or (spec.name if spec else None), spec)
    if format != "table":
        import pandas as pd

        print_rows(pd.DataFrame([asdict(row) for row in rows]), format)
        return
    if not rows:
        say(f"No campaign in {uri} yet")
    for name in dict.fromkeys(row.campaign for row in rows):
        cells = [row for row in rows if row.campaign == name]
        say(one_line(f"{name}{f', run {cells[0].run}' if cells[0].run else ''}: {summary(cells)}"))
        shown = [row for row in cells if row.state != "complete" or row.failed_samples]
        if shown:
            columns = ("model", "benchmark", "state", "responses", "failed samples", "fingerprint", "detail")
            print_columns(
                columns,
                [
                    (
                        row.model,
                        row.benchmark,
                        row.state,
                        str(row.responses or ""),
                        str(row.failed_samples or ""),
                        row.fingerprint[:12],
                        " ".join(row.detail.split()),
                    )
                    for row in shown
                ],
            )


def rerun(
    spec_path: SpecPath,
    failed: Annotated[bool, typer.Option("--failed", help="Only what failed in the campaign's last run.")] = False,
) -> None:
    """Evaluate the models again that failed in the campaign's last run, and ask again what was not answered."""
    from deployments.launch import rerun_failed

    if not failed:
        raise UserError("say --failed; to go on with all models use steelyard run")
    configure()
    sys.exit(rerun_failed(load_spec(spec_path)))


def invalidate(
    store: StoreArgument,
    model: Annotated[str | None, typer.Option(help="Cells of this model.")] = None,
    benchmark: Annotated[str | None, typer.Option(help="Cells of this benchmark.")] = None,
    fingerprint: Annotated[str | None, typer.Option(help="The cell that begins so.")] = None,
    yes: Yes = False,
) -> None:
    """Take cells out of the store, with their answers, to have them computed again. Whoever reads meanwhile sees whole cells."""
    from core.storage.open import open_storage
    from core.upkeep import recompute

    if not (model or benchmark or fingerprint):
        raise UserError("say which cells: --model, --benchmark or --fingerprint")
    uri, _ = store_of(store)
    cells = recompute.find_cells(open_store(uri), model, benchmark, fingerprint)
    if not cells:
        raise UserError(f"no cell of {uri} is all of that: drop one of --model, --benchmark and --fingerprint")
    rows = [
        (
            cell.fingerprint[:12],
            "complete" if cell.complete else "begun",
            "; ".join(f"{name} · {label}" for name, label in cell.names),
        )
        for cell in cells
    ]
    print_columns(("fingerprint", "state", "cell"), rows)
    if not yes:
        say(f"{len(cells)} cells would be taken out of {uri}; add --yes to do it")
        return
    storage = open_storage(uri)
    for cell in cells:
        recompute.invalidate(storage, cell.fingerprint)
    say(f"{len(cells)} cells taken out of {uri}")


def upload(spool: Annotated[Path, typer.Argument(metavar="SPOOL", help="The folder that the campaign named.")]) -> None:
    """Bring answers that S3 did not take into the results store. What is there goes from the disk."""
    from core.store.spool import upload as bring_in

    say(f"{bring_in(spool)} shards uploaded; the campaign's next run goes on from them")


def gc(
    store: StoreArgument,
    days: Annotated[float, typer.Option(min=0, help="Only what is older.")] = 7,
    yes: Yes = False,
) -> None:
    """Delete what nobody needs any more: shards, leases and files that killed campaigns have left. Names foreign files."""
    from core.upkeep.garbage import collect, find_garbage

    uri, _ = store_of(store)
    opened = open_store(uri)
    garbage = find_garbage(opened, days * 24 * 3600)
    if garbage:
        print_columns(
            ("what", "why", "path"),
            [("left alone" if each.foreign else "garbage", each.reason, each.path) for each in garbage],
        )
    if yes:
        say(f"{collect(opened, garbage)} files deleted from {uri}")
    else:
        ours = sum(not each.foreign for each in garbage)
        say(f"{ours} files would be deleted from {uri}{'; add --yes to do it' if ours else ''}")
