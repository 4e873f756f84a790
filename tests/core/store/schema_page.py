"""docs/schema.md from the schemas and the comments beside their columns: ``python -m tests.core.store.schema_page`` writes it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pyarrow as pa

from core.store import monitor, runs, schema

PAGE = Path(__file__).parents[3] / "docs" / "schema.md"
COLUMN = re.compile(r'^\s*pa\.field\("(?P<name>\w+)",.*\),(?:\s+#\s(?P<comment>.+))?$')
TABLES = (
    (
        schema,
        "SAMPLES",
        "samples/benchmark=<benchmark>/model=<model>/<fingerprint>.parquet",
        "One row per doc of a task.",
    ),
    (
        schema,
        "SCORES",
        "scores/benchmark=<benchmark>/model=<model>/<fingerprint>.parquet",
        "One row per task, metric and filter. The leaderboard is the rows where `is_headline`.",
    ),
    (
        runs,
        "TIMELINE",
        "timeline/campaign=<campaign>/run=<run>/<model>-<nonce>.parquet",
        "One row per phase of a model in a run: [monitoring.md](monitoring.md).",
    ),
    (
        monitor,
        "MONITOR",
        "monitor/campaign=<campaign>/run=<run>/<model>-<nonce>-<seq>.parquet",
        "One row per reading of a GPU, host or engine: [monitoring.md](monitoring.md).",
    ),
    (
        schema,
        "RESPONSES",
        "responses/cell=<fingerprint>/<nonce>-<seq>.parquet",
        "One row per request, of cells that are not complete; not for reading, but for going on.",
    ),
)
HEAD = """# The store as a data set

Made from the schemas in `core/` by `python -m tests.core.store.schema_page`; a test holds it to them. What may be relied on, and
how the files come about, is in [results.md](results.md).

Parquet, zstd, row groups of {rows:,} rows, page checksums. Schema version {version} (`steelyard.schema` in each file's
metadata); files of version {older} are read too, and lack the columns that came later. `benchmark` and `model` (of the timeline
and the readings `campaign` and `run`) are hive partitions: readers get them from the path, once.

## Read it in one line

With `STORE` an `s3://bucket/prefix` or a directory; S3 is reached by the standard variables (`AWS_ENDPOINT_URL`, …).

{readers}

`steelyard.open_store` gives the names that a campaign gave its models, and checks every file against its commit record; the
others read whatever lies there. pandas shows maps (`filtered`, `metrics`) as lists of pairs: `frame["metrics"].map(dict)`; DuckDB:
`metrics['exact_match,strict-match']`.
"""
READERS = {
    "Steelyard": 'frame = steelyard.open_store(STORE).samples(columns=["task", "doc_id", "value"])',
    "pandas": 'frame = pandas.read_parquet(f"{STORE}/samples")',
    "pyarrow": 'table = pyarrow.dataset.dataset(f"{STORE}/samples", partitioning="hive").to_table()',
    "DuckDB": "rows = duckdb.sql(f\"from read_parquet('{STORE}/samples/**/*.parquet', hive_partitioning=true)\")",
    "polars": 'frame = polars.scan_parquet(f"{STORE}/samples/**/*.parquet", hive_partitioning=True)',
    "HF datasets": 'data = datasets.Dataset(pyarrow.dataset.dataset(f"{STORE}/samples", partitioning="hive").to_table(COLUMNS))',
}
NOTES = {
    "pyarrow": "for S3: `dataset(…, filesystem=s3fs.S3FileSystem())`, without `s3://`",
    "DuckDB": 'for S3, once: `duckdb.register_filesystem(fsspec.filesystem("s3"))`',
    "HF datasets": 'it knows no maps: `COLUMNS = ["benchmark", "model", "task", "doc_id", "prompt", "texts", "value"]`',
}


def page() -> str:
    """Return the page."""
    readers = "\n".join(
        f"{name}{f' ({NOTES[name]})' if name in NOTES else ''}:\n\n    {line}\n" for name, line in READERS.items()
    )
    older = " and ".join(version for version in schema.READABLE if version != schema.SCHEMA_VERSION)
    head = HEAD.format(rows=schema.ROWS_IN_GROUP, version=schema.SCHEMA_VERSION, older=older, readers=readers.rstrip())
    return "\n".join([head, *(_table(*table) for table in TABLES)])


def _table(module: ModuleType, name: str, path: str, what: str) -> str:
    fields: pa.Schema = getattr(module, name)
    comments = _comments(module)
    # The comments are markdown of our own, which `core.tables.Table` would escape.
    rows = [
        (f"`{each.name}`", f"`{each.type}`", "" if each.nullable else "never null", comments[name, each.name])
        for each in fields
    ]
    lines = [("column", "type", "", "meaning"), ("---",) * 4, *rows]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"## {name.lower()}\n\n`{path}`. {what}\n\n{table}\n"


def _comments(module: ModuleType) -> dict[tuple[str, str], str]:
    """Read the comment beside each column. Raises `ValueError` for a column that has none."""
    return dict(_read_comments(module))


def _read_comments(module: ModuleType) -> Iterator[tuple[tuple[str, str], str]]:
    table = ""
    shared: list[tuple[str, str]] = []
    for line in inspect.getsource(module).splitlines():
        if opened := re.match(r"^(_?[A-Z]+) = (?:pa\.schema\()?\[?", line):
            table = opened[1]
        if "*_IDENTITY" in line:
            yield from (((table, name), comment) for name, comment in shared)
        if found := COLUMN.match(line):
            if found["comment"] is None:
                raise ValueError(f"{module.__name__}: column {found['name']!r} of {table} has no comment beside it")
            shared += [(found["name"], found["comment"])] if table == "_IDENTITY" else []
            yield (table, found["name"]), found["comment"]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
