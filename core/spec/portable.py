"""A spec that means the same on another machine's working directory: its local paths made absolute."""

from __future__ import annotations

from pathlib import Path

from core.campaign import BenchmarkSpec, CampaignSpec, DatasetsSpec, ModelSpec
from core.spec.suite import is_path


def absolute_paths(spec: CampaignSpec) -> CampaignSpec:
    """Return ``spec`` with local paths of models, task YAMLs, the mirror and results made absolute; it names and means the same.

    Hub ids and URIs stay as they are; what a hub id is, `core.model.files.open_files` decides the same way.
    """
    return spec.model_copy(
        update={
            "models": [_model(model) for model in spec.models],
            "benchmarks": [_benchmark(benchmark) for benchmark in spec.benchmarks],
            "datasets": _datasets(spec.datasets),
            "results": spec.results if "://" in spec.results else _absolute(spec.results),
        }
    )


def _model(model: ModelSpec) -> ModelSpec:
    source = model.model
    local = source.startswith((".", "/", "~")) or source.count("/") != 1 or Path(source).is_dir()
    if "://" in source or not local:
        return model
    return model.model_copy(update={"model": _absolute(source)})


def _benchmark(benchmark: BenchmarkSpec) -> BenchmarkSpec:
    local = is_path(benchmark.name) and "://" not in benchmark.name
    return benchmark.model_copy(update={"name": _absolute(benchmark.name)}) if local else benchmark


def _datasets(datasets: DatasetsSpec) -> DatasetsSpec:
    if datasets.mirror is None or "://" in datasets.mirror:
        return datasets
    return datasets.model_copy(update={"mirror": _absolute(datasets.mirror)})


def _absolute(path: str) -> str:
    # Not resolve(): a link such as runs/latest is meant to move.
    return str(Path(path).expanduser().absolute())
