"""An engine's figures: how vLLM's are collected, and what a process tells of its own life."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.errors import EngineDiedError
from engines.engine import EngineConfig
from engines.process.lightweight import LightweightEngine
from tests.scripted_engine import ScriptedEngine


@pytest.fixture(scope="module")
def manager() -> Any:
    """vLLM's own distribution of figures to loggers, as `AsyncLLM` makes it for `EngineStats`, with two engine cores."""
    from vllm.v1.metrics.loggers import StatLoggerManager

    from engines.session.stats import EngineStats

    return StatLoggerManager(None, [0, 1], [EngineStats], enable_default_loggers=False)


def test_vllm_adds_no_logger_of_its_own_and_registers_no_metrics(manager: Any) -> None:
    from prometheus_client import REGISTRY

    assert [type(each).__name__ for each in manager.stat_loggers] == ["EngineStats"]
    assert not [family.name for family in REGISTRY.collect() if family.name.startswith("vllm")]


def test_figures_of_all_engine_cores_are_added_up(manager: Any) -> None:
    from vllm.v1.metrics.stats import IterationStats, PrefixCacheStats, SchedulerStats

    steps = IterationStats()
    steps.num_generation_tokens = 5
    steps.prompt_token_stats.total = 30
    for core, running in ((0, 9), (0, 2), (1, 3)):
        cache = PrefixCacheStats(requests=1, queries=10, hits=4)
        stats = SchedulerStats(
            num_running_reqs=running,
            num_waiting_reqs=1,
            num_skipped_waiting_reqs=1,
            kv_cache_usage=running / 10,
            prefix_cache_stats=cache,
        )
        manager.record(stats, steps, engine_idx=core)
    manager.record(None, None, engine_idx=0)
    assert manager.stat_loggers[0].latest() == {
        "running": 5,
        "waiting": 4,
        "kv_cache_usage": 0.3,
        "prefix_cache_queries": 30,
        "prefix_cache_hits": 12,
        "prompt_tokens": 90,
        "generation_tokens": 15,
    }


def test_what_else_vllm_tells_a_logger_is_taken_in_silence(manager: Any, capsys: pytest.CaptureFixture[str]) -> None:
    manager.log_engine_initialized()
    manager.record_sleep_state(1, 1)
    manager.record_admission_rejection("max_num_queued_reqs")
    manager.log()
    assert capsys.readouterr() == ("", "")


def test_an_engine_tells_its_life_even_if_it_never_loads(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no_such_model"}))
    engine = LightweightEngine(EngineConfig(model=str(tmp_path), device="cpu"))
    assert engine.stats() == {}
    before = time.time()
    with pytest.raises(EngineDiedError):
        engine.open()
    engine.close()
    stats = engine.stats()
    assert set(stats) == {"pid", "started", "ended"}
    assert before <= stats["started"] < stats["ended"] <= time.time()
    assert not psutil.pid_exists(int(stats["pid"]))


def test_a_scripted_engine_lives_from_open_to_close() -> None:
    first, second = (ScriptedEngine(lambda request: pytest.fail("not asked")) for _ in range(2))
    assert first.stats() == {}
    first.open()
    second.open()
    assert first.stats()["pid"] != second.stats()["pid"]
    assert "ended" not in first.stats()
    first.close()
    first.close()
    assert first.stats()["started"] <= first.stats()["ended"] <= time.time()
