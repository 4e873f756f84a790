"""One campaign on real parts: vLLM on both engines, Ray, Prefect and S3, and a model that cannot load."""

import json
from pathlib import Path

import pandas as pd
import pytest

from core.compare.flips import agreement
from core.results import open_store
from engines.distributed.cluster import local_clusters
from flows.campaign import CampaignFailedError, campaign
from tests import models
from tests.processes import nothing_left, running

LIMIT = 40


def with_a_layer_more(checkpoint: Path, folder: Path) -> Path:
    """A checkpoint whose config counts one layer more than its weights have: only vLLM finds out, once it loads them."""
    folder.mkdir()
    for file in checkpoint.iterdir():
        (folder / file.name).symlink_to(file)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": config["num_hidden_layers"] + 1}))
    return folder


@pytest.mark.vllm
@pytest.mark.xdist_group("distributed")  # it starts Ray
@pytest.mark.s3
def test_both_engines_agree_and_a_broken_model_stops_neither(tmp_path: Path, s3_root: str) -> None:
    cache = models.cache_directory(tmp_path)
    broken = with_a_layer_more(models.smollm2(cache), tmp_path / "broken")
    shared = {"dtype": "float32", "max_model_len": 4608}
    spec = {
        "name": "real",
        "models": [
            {"model": str(models.smollm2(cache)), "name": "light", "engine": "lightweight", **shared},
            {"model": str(models.padded_smollm2(cache)), "name": "heavy", "tensor_parallel": 2, **shared},
            {"model": str(broken), "name": "broken", **shared, "max_model_len": 1024},
        ],
        "benchmarks": [
            {"name": "steelyard_letters", "limit": LIMIT},
            {"name": "steelyard_facts", "limit": LIMIT},
            {"name": "steelyard_arithmetic", "limit": 10},
            {"name": "niah_single_1", "label": "ruler_4k", "limit": 1, "metadata": {"max_seq_lengths": [4096]}},
        ],
        "fleet": {"gpus": 2, "gpu_memory_gb": 6, "device": "cpu"},
        "policy": {"service_idle_seconds": 0},
        "results": s3_root,
        "canary": False,  # `make demo` has one; it loads two more engines
    }
    before = running()
    with pytest.raises(CampaignFailedError, match="1 of 3 models failed: broken: ") as caught:
        campaign(spec)
    assert local_clusters() == []  # at idle time zero
    assert nothing_left(before, 60)
    assert "layers.30." in caught.value.failures["broken"]  # of a layer that there is not

    store = open_store(s3_root)
    board = store.leaderboard("real")
    engines = board.drop_duplicates("model").set_index("model")["engine"].to_dict()
    assert engines == {"light": "lightweight", "heavy": "distributed"}
    assert len(board) == 8

    rows = pd.read_parquet(f"{s3_root}/samples")
    assert not rows.duplicated(["model", "benchmark", "task", "doc_id"]).any()
    assert len(rows) == 2 * (2 * LIMIT + 10 + 1)
    long = rows[rows["benchmark"] == "ruler_4k"]
    assert long["prompt"].nunique() == 1  # one tokenizer, one doc
    assert long["prompt_tokens"].between(3800, 4200).all()
    assert (long["dropped_tokens"] == 0).all()
    assert set(board[board["benchmark"] == "ruler_4k"]["metric"]) == {"4096"}
    for compared in agreement(store.samples(), "light", "heavy"):
        assert compared.docs == LIMIT
        assert compared.same_answers >= 0.995
        assert compared.logprob_p99 < 0.01
