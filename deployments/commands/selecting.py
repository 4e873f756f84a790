"""How commands are told which results they are about: a store, or a campaign's YAML, and a part of its leaderboard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from core.results import Store

STORE_HELP = "s3://bucket/prefix, a directory, or a campaign's YAML."

StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help=STORE_HELP)]
StoreOption = Annotated[str, typer.Option("--store", metavar="STORE", help=STORE_HELP)]
CampaignOption = Annotated[str | None, typer.Option(help="Only this campaign.")]
BenchmarkOption = Annotated[
    list[str] | None, typer.Option(help="Only these benchmarks; several times, * and ? stand for any text.")
]
ModelOption = Annotated[list[str] | None, typer.Option(help="Only these models, named alike.")]
SuiteOption = Annotated[
    str | None, typer.Option(help="Only this suite's benchmarks, and the mean of them as one more.")
]


def opened(store: str, campaign: str | None = None) -> tuple[Store, str | None]:
    """Open a store. Of a campaign's YAML it is the campaign's, and that campaign counts unless another is named."""
    from core.campaign import load_spec
    from core.results import open_store

    if store.endswith((".yaml", ".yml", ".json")):
        spec = load_spec(store)
        return open_store(spec.results), campaign or spec.name
    return open_store(store), campaign
