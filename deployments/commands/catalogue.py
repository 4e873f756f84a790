"""``steelyard benchmarks``: the catalogue as text columns, CSV or JSON lines, and one benchmark in detail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from core.errors import UserError, nearest

COLUMNS = ("name", "kind", "type", "dataset", "few-shot", "version", "licence", "tags")


def benchmarks(
    search: Annotated[
        str, typer.Argument(help="Words of names, datasets and tags, a name with *, or a folder of your own.")
    ] = "",
    tag: Annotated[str | None, typer.Option(help="Only benchmarks with this tag.")] = None,
    type: Annotated[
        str | None,
        typer.Option(help="Request type: generate_until, multiple_choice, loglikelihood or loglikelihood_rolling."),
    ] = None,
    kind: Annotated[str | None, typer.Option(help="task, python, group, tag, suite, bundled or broken.")] = None,
    suite: Annotated[str | None, typer.Option(help="Only members of this suite.")] = None,
    format: Annotated[str, typer.Option(help="table, csv or json (one object a line).")] = "table",
) -> None:
    """List what a campaign can name; with one's exact name, everything about it. Loads no dataset."""
    from core.benchmark.listing import details, listings, select, summary
    from core.tables import facts_table
    from deployments.console import check_format, console, print_columns, print_rows

    check_format(format, ("table", "csv", "json"))
    folder = Path(search).expanduser() if "/" in search else None
    if folder is not None and not folder.is_dir():
        raise UserError(f"{search!r}: no such folder of task YAMLs")
    everything = listings(folder)
    chosen = select(everything, "" if folder else search, tag=tag, request_type=type, kind=kind, suite=suite)
    if not chosen:
        close = (
            nearest(search, [each.name for each in everything]) if search and not (tag or type or kind or suite) else ""
        )
        raise UserError(f"no benchmark for {search!r}{close}" if search else "no benchmark has all of that")
    exact = [each for each in chosen if each.name == search]
    if exact and format == "table":
        console().print(facts_table(search, details(exact[0])))
        others = len(chosen) - 1
        if others:
            print(f"\n{others:,} more match {search!r}: steelyard benchmarks '*{search}*'")
        return
    if format == "json":
        for each in exact or chosen:
            print(json.dumps({**each.row(), **({"details": details(each)} if exact else {})}, ensure_ascii=False))
        return
    rows = [each.row() for each in chosen]
    if format == "csv":
        import pandas as pd

        rows = [
            {key: " ".join(value) if isinstance(value, tuple) else value for key, value in row.items()} for row in rows
        ]
        print_rows(pd.DataFrame(rows, dtype=object), format)
        return
    cells = [
        (
            row["name"],
            row["kind"],
            ",".join(row["request_types"]),
            row["dataset"] + (f" {row['config']}" if row["config"] and row["config"] != row["name"] else ""),
            "" if row["num_fewshot"] is None else str(row["num_fewshot"]),
            row["version"],
            row["licence"],
            f"cannot be loaded: {row['fault']}" if row["fault"] else ",".join(row["tags"]),
        )
        for row in rows
    ]
    print_columns(COLUMNS, cells)
    print(f"\n{summary(chosen)}")
