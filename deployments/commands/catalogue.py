"""``steelyard benchmarks``: the catalogue, and one benchmark in detail; ``steelyard datasets``: where they are, and fetching."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from core.benchmark.datasets.call import LoadedDataset
from core.campaign import load_spec
from core.errors import UserError, nearest
from deployments.console import SpecPath, check_format, complain, console, print_columns, print_rows, say, say_json

datasets = typer.Typer(help="Datasets of a campaign: where they are, and fetching them ahead.", no_args_is_help=True)

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
            say(f"\n{others:,} more match {search!r}: steelyard benchmarks '*{search}*'")
        return
    if format == "json":
        for each in exact or chosen:
            say_json({**each.row(), **({"details": details(each)} if exact else {})})
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
    say(f"\n{summary(chosen)}")


@datasets.command("list")
def list_datasets(spec_path: SpecPath) -> None:
    """Show where each dataset would come from, and whether it can be had. Fetches nothing; exit code 1 where one is missing."""
    from core.benchmark.needed import statuses

    spec = load_spec(spec_path)
    rows = statuses(spec.benchmarks, spec.datasets)
    cells = [
        (
            each.dataset,
            ", ".join(each.configs) if len(each.configs) < 3 else f"{len(each.configs)} configs",
            each.revision or "",
            each.place,
            "no" if each.fault else "not looked into" if each.place in ("code", "url") else "yes",
            ", ".join(each.benchmarks),
            each.fault or "",
        )
        for each in rows
    ]
    print_columns(("dataset", "config", "revision", "place", "there", "benchmarks", "fault"), cells)
    sys.exit(1 if any(each.fault for each in rows) else 0)


@datasets.command()
def fetch(
    spec_path: SpecPath,
    to: Annotated[
        str | None,
        typer.Option(metavar="MIRROR", help="Also copy them into this mirror: s3://bucket/prefix or a directory."),
    ] = None,
) -> None:
    """Fetch every dataset into this machine's cache. Runs the tasks' own loading code; exit code 1 where one is missing."""
    from core.benchmark.needed import fetch as fetch_all
    from core.spec.parts import DatasetsSpec

    spec = load_spec(spec_path)
    target = DatasetsSpec(mirror=to).mirror

    def report(benchmark: str, loaded: LoadedDataset) -> None:
        config, revision = loaded.config or "", loaded.revision or "no revision known"
        say(f"{benchmark}: {loaded.dataset} {config} ({revision}) from {loaded.place}".replace("  ", " "))

    failed = fetch_all(spec.benchmarks, spec.datasets, target, report)
    for line in failed:
        complain(line)
    sys.exit(1 if failed else 0)
