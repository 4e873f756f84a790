"""``steelyard export`` and ``steelyard import``: results in other tools' files, and theirs in our store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.errors import UserError
from core.visible import one_line
from deployments.console import (
    NOTHING,
    BenchmarkOption,
    CampaignOption,
    ModelOption,
    StoreOption,
    check_format,
    opened,
    say,
)

if TYPE_CHECKING:
    import pandas as pd

    from core.board.read import Board
    from core.board.select import Selection
    from core.report.exchange.lm_eval_export import CellResults
    from core.results import Store

LM_EVAL = "lm-eval"
FORMATS = (LM_EVAL, "mlflow", "wandb")


def export(
    folder: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="Where to write, of lm-eval.")] = None,
    store: StoreOption = "results",
    format: Annotated[
        str,
        typer.Option(
            help="lm-eval: lm-evaluation-harness's results JSON and samples JSONL. mlflow, wandb: one run there for each model."
        ),
    ] = LM_EVAL,
    campaign: CampaignOption = None,
    benchmark: BenchmarkOption = None,
    model: ModelOption = None,
    project: Annotated[
        str | None,
        typer.Option(help="Experiment of MLflow or project of W&B; its own variable or 'steelyard' if left out."),
    ] = None,
    samples: Annotated[bool, typer.Option("--samples", help="Samples too, as Parquet, of mlflow and wandb.")] = False,
) -> None:
    """Write results and samples for other tools to read, or put them into MLflow or Weights & Biases."""
    from core.board.select import Selection
    from deployments.trackers import export_to

    check_format(format, FORMATS)
    is_lm_eval = format == LM_EVAL
    if is_lm_eval and (project is not None or samples):
        raise UserError(
            f"--{'samples' if samples else 'project'} is of --format mlflow and wandb; lm-eval has samples anyway"
        )
    if is_lm_eval != (folder is not None):
        raise UserError(
            "DIR: name the folder to write to" if is_lm_eval else f"DIR {str(folder)!r}: {format} takes none"
        )
    source, campaign = opened(store, campaign)
    selection = Selection(tuple(benchmark or ()), tuple(model or ()))
    if folder is not None:
        _export_lm_eval(folder, source, campaign, selection)
        return
    said = None
    for said in export_to(format, source, campaign, selection, project=project, samples=samples):
        say(said)
    if said is None:
        raise UserError(NOTHING.format(source.uri))


def _export_lm_eval(folder: Path, source: Store, campaign: str | None, selection: Selection) -> None:
    from core.board.read import read_board
    from core.report.exchange.lm_eval_export import export_model

    board = read_board(source, campaign, selection)
    if board.compared.board.empty:
        raise UserError(NOTHING.format(source.uri))
    scores = source.scores(campaign).drop_duplicates(["fingerprint", "task", "metric", "filter"])
    for name in sorted(set(board.compared.board["model"])):
        for path, text in export_model(name, _cells(board, name, scores)):
            _write(folder / path, text)
            say(folder / path)


def import_(
    format: Annotated[str, typer.Argument(metavar="FORMAT", help="lm-eval.")],
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILES...", help="Results files (results_….json); their samples files lie beside them."),
    ],
    store: StoreOption = "results",
    name: Annotated[str | None, typer.Option(help="The model's name in results; its own if left out.")] = None,
) -> None:
    """Take other tools' results into a store. The same file twice changes nothing."""
    from core.report.exchange.lm_eval_import import ENGINE, check_format, import_results
    from core.store.quality import facts_of

    check_format(format)
    target, _ = opened(store)
    for path in files:
        if path.name.startswith("samples_"):
            continue  # `*` names them too; each is read with its results
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            cells = list(import_results(content, partial(_lines, path), name))
        except OSError as error:
            raise UserError(f"{str(path)!r}: it cannot be read: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise UserError(f"{str(path)!r}: {error}: use a results file of lm-evaluation-harness 0.4") from error
        for cell, scoring in cells:
            is_new = target.commit(cell, scoring, {"engine": ENGINE, "imported": path.name, **facts_of(scoring)})
            head = scoring.headline
            known = "" if is_new else " (known already)"
            told = (
                f"{cell.model}, {cell.benchmark}: {head.metric} {head.value:.4f}, {len(scoring.samples)} samples{known}"
            )
            say(one_line(told))


def _cells(board: Board, model: str, scores: pd.DataFrame) -> Iterable[CellResults]:
    from core.report.exchange.lm_eval_export import CellResults

    frame = board.compared.board.sort_values(["benchmark", "fingerprint"])
    for fingerprint in frame.loc[frame["model"] == model, "fingerprint"]:
        own = scores[scores["fingerprint"] == fingerprint]
        rows = [{str(key): value for key, value in row.items()} for row in own.to_dict("records")]
        yield CellResults(board.records[fingerprint], rows, board.store.cell_samples(fingerprint))


def _lines(results: Path, task: str) -> list[Mapping[str, object]] | None:
    """Read a task's samples file of the same run: ``samples_<task>_<date>.jsonl``."""
    date = results.stem.rpartition("_")[2]
    path = results.with_name(f"samples_{task}_{date}.jsonl")
    if not path.exists():
        return None
    with path.open(encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file if line.strip()]


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UserError(f"{str(path)!r}: it cannot be written: {error.strerror or error}") from error
