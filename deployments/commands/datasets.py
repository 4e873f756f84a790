"""``steelyard datasets``: where a campaign's datasets are, and fetching them before a GPU is held."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from core.benchmark.datasets.call import LoadedDataset
from core.campaign import load_spec

app = typer.Typer(help="Datasets of a campaign: where they are, and fetching them ahead.", no_args_is_help=True)
SpecPath = Annotated[Path, typer.Argument(metavar="CAMPAIGN.YAML", help="Campaign specification, YAML or JSON.")]


@app.command("list")
def list_datasets(spec_path: SpecPath) -> None:
    """Show where each dataset would come from, and whether it can be had. Fetches nothing; exit code 1 where one is missing."""
    from core.benchmark.needed import statuses
    from deployments.console import print_columns

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


@app.command()
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

    def say(benchmark: str, loaded: LoadedDataset) -> None:
        config, revision = loaded.config or "", loaded.revision or "no revision known"
        print(f"{benchmark}: {loaded.dataset} {config} ({revision}) from {loaded.place}".replace("  ", " "), flush=True)

    failed = fetch_all(spec.benchmarks, spec.datasets, target, say)
    for line in failed:
        print(f"steelyard: {line}", file=sys.stderr)
    sys.exit(1 if failed else 0)
