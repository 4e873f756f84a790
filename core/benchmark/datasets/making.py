"""The process that runs tasks' code to make docs: ``python -m core.benchmark.datasets.making``, with JSON on its standard input.

Each task is made in a fork, with the random numbers of Python, NumPy and torch seeded, so that none sees what another left behind.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import re
import signal
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Any

import numpy
import pyarrow.parquet as pq

from core.benchmark.datasets.made import FAULT, MADE
from core.benchmark.datasets.mirror import Mirror
from core.benchmark.datasets.route import Route, install
from core.benchmark.datasets.web import MEND, keep_pages
from core.errors import UserError
from core.spec.parts import DatasetsSpec

PR_SET_PDEATHSIG = 1
LONGEST_REASON = 600
NOT_WORDS = re.compile(r"\x1b\[[0-9;]*m|\*{3,}")


def main() -> None:
    """Make every job's docs into ``<folder>/<key>``, some at a time."""
    _end_with_parent()
    asked = json.loads(sys.stdin.read())
    os.environ.update(TQDM_DISABLE="1", TOKENIZERS_PARALLELISM="false", TRANSFORMERS_VERBOSITY="error")
    _ask_before_running_code(asked["trust_remote_code"])
    _import_once(several=len(asked["jobs"]) > 1)
    most, running = max(1, len(os.sched_getaffinity(0)) // 2), 0
    for job in asked["jobs"]:
        if running == most:
            os.wait()
            running -= 1
        if os.fork() == 0:
            _one(job, asked)
        running += 1
    for _ in range(running):
        os.wait()


def _end_with_parent() -> None:
    signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # a task's bare ``except`` would take Ctrl-C for a doc that does not fit
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _import_once(*, several: bool) -> None:
    """Import what every fork needs."""
    import datasets
    import lm_eval.tasks  # noqa: F401

    if several:
        from transformers import AutoTokenizer  # noqa: F401 - seconds, for torch
    datasets.disable_progress_bars()
    install()


def _one(job: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Make one task's docs, and end this process."""
    code = 1
    try:
        _end_with_parent()
        folder = Path(asked["folder"], job["key"])
        folder.mkdir()
        _make(job, asked, folder)
        code = 0
    except BaseException as error:  # a task's own code raises anything
        traceback.print_exc()
        (folder / FAULT).write_text(_reason(error), encoding="utf-8")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _make(job: Mapping[str, Any], asked: Mapping[str, Any], folder: Path) -> None:
    from lm_eval.tasks._yaml_loader import _import_func_in_yml

    datasets = DatasetsSpec(**asked["datasets"])
    mirrors = [Mirror(uri) for uri in (asked["save_to"], datasets.mirror) if uri]
    route = Route(datasets, asked["revision"], Mirror(asked["save_to"]) if asked["save_to"] else None)
    keep_pages(mirrors, save=bool(asked["save_to"]), offline=datasets.offline)
    function = _import_func_in_yml(job["function"], Path(job["folder"]))
    _seed(asked["seed"])
    with route.active():
        made = function(**job["arguments"])
    splits = {}
    for number, (split, docs) in enumerate(splits_of(made).items()):
        splits[str(split)] = name = f"{number}.parquet"
        _write(docs, folder / name)
    record = {"splits": splits, "loaded": [asdict(each) for each in route.loaded]}
    (folder / MADE).write_text(json.dumps(record), encoding="utf-8")


def _write(docs: Any, file: Path) -> None:
    """Write a ``Dataset``. Docs of one corpus repeat its text: pages that hold many of them become small."""
    table = docs.with_format("arrow")[:].cast(docs.features.arrow_schema)
    pq.write_table(table, file, compression="zstd", use_dictionary=False, data_page_size=1 << 26)


def _seed(seed: int) -> None:
    """Seed as lm-eval's ``--seed`` does before it loads a task."""
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(seed)


def splits_of(made: Any) -> Mapping[Any, Any]:
    """Return what a task's code made. Raises `core.errors.UserError` where lm-eval could not take docs from it."""
    if not isinstance(made, Mapping) or not all(hasattr(docs, "to_parquet") for docs in made.values()):
        kind = (
            {str(key): type(value).__name__ for key, value in made.items()} if isinstance(made, Mapping) else type(made)
        )
        raise UserError(f"it returns {kind}: return a mapping of splits to datasets.Dataset")
    return made


def _ask_before_running_code(allowed: bool) -> None:
    """Load tokenizers that bring code only where the model's entry allows it; RULER asks for it whatever that says."""
    from transformers import dynamic_module_utils

    original = dynamic_module_utils.resolve_trust_remote_code

    @wraps(original)
    def resolve(_asked: Any, *args: Any, **kwargs: Any) -> Any:
        return original(allowed, *args, **kwargs)

    dynamic_module_utils.resolve_trust_remote_code = resolve  # before transformers' own modules take it from there


def _reason(error: BaseException) -> str:
    lines = (NOT_WORDS.sub("", line).strip() for line in str(error).splitlines())
    words = " ".join(line for line in lines if line)[:LONGEST_REASON]
    if isinstance(error, ConnectionError):  # as `datasets` raises it
        words += f": {MEND}"
    return words if isinstance(error, UserError) else f"{type(error).__name__}: {words}".removesuffix(": ")


if __name__ == "__main__":
    main()
