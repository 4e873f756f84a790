"""Runs into Weights & Biases, by its own client. Where to, and as whom, is what its own variables say (``WANDB_API_KEY``, …)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import UserError
from core.report.exchange.tracking_export import PROJECT, missing

if TYPE_CHECKING:
    from core.report.exchange.tracking_export import TrackedRun

LONGEST_TAG = 64
# Nothing of this machine, its environment, its packages or the working directory's repository goes out.
PRIVATE = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "save_code": False,
    "silent": True,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}


def exporter(project: str | None) -> Callable[[TrackedRun, Path], str]:
    """Return what puts one run and the files of a folder into a project, and says where; one that is there is updated.

    Raises `core.errors.UserError` where the client is not installed; what is returned, where the server refuses or is away.
    """
    try:
        import wandb
    except ImportError as error:
        raise missing("wandb", error) from error
    name = project or os.environ.get("WANDB_PROJECT") or PROJECT

    def export(run: TrackedRun, folder: Path) -> str:
        labels = [run.tags[tag][:LONGEST_TAG] for tag in ("campaign", "run") if tag in run.tags]
        try:
            with wandb.init(
                project=name,
                id=run.key,
                resume="allow",
                name=run.name,
                group=run.tags.get("campaign"),
                job_type="evaluation",
                tags=labels,
                config={**run.params, **{f"steelyard/{tag}": value for tag, value in run.tags.items()}},
                settings=wandb.Settings(**PRIVATE),
            ) as opened:
                # Its summary, not its history: that would have one step more after each export.
                opened.summary.update(dict(run.metrics))
                for kind in sorted(folder.iterdir()):
                    artifact = wandb.Artifact(f"{run.key}-{kind.name}", kind.name)
                    for path in sorted(kind.iterdir()):
                        artifact.add_file(str(path), path.name)
                    opened.log_artifact(artifact)
                place = opened.dir if opened.offline else opened.url
        except (wandb.Error, OSError) as error:
            raise UserError(f"--format 'wandb': {str(error).splitlines()[0]}; see WANDB_API_KEY, WANDB_MODE") from error
        return f"{run.name}: {place}"

    return export
