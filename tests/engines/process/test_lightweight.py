"""The lightweight engine on a real vLLM."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.errors import EngineDiedError, UserError
from core.monitor.readings import HostReader, Monitor, engine_reader
from core.monitor.summary import summarise
from core.request import Generate, Loglikelihood, Sampling
from engines.engine import Engine, EngineConfig
from engines.host.folder import SCRATCH, shared_memory_of
from engines.host.slots import device_environment
from engines.process.lightweight import MODULE, Claim, LightweightEngine, prewarmed
from tests.engines import contract
from tests.engines.conftest import WINDOW
from tests.processes import gone, group_of, killed_at_the_end

ROOT = Path(__file__).resolve().parents[3]


def config(model: Path) -> EngineConfig:
    return EngineConfig(model=str(model), dtype="float32", max_model_len=WINDOW, device="cpu", gpu_memory_gb=3)


@pytest.fixture(scope="module")
def lightweight_engine(smollm2: Path) -> Iterator[LightweightEngine]:
    engine = LightweightEngine(config(smollm2))
    info = engine.open()
    assert (info.detail["model_runner"], info.detail["scored_rows_only"]) == (1, True)
    yield engine
    engine.close()


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs of engines that died stay with the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.mark.vllm
class TestContract:
    def test_is_an_engine(self, lightweight_engine: LightweightEngine) -> None:
        assert isinstance(lightweight_engine, Engine)

    def test_generates_what_the_model_knows(self, lightweight_engine: LightweightEngine) -> None:
        contract.generates_what_the_model_knows(lightweight_engine)

    def test_stops_at_the_length_limit(self, lightweight_engine: LightweightEngine) -> None:
        contract.stops_at_the_length_limit(lightweight_engine)

    def test_scores_single_letters(self, lightweight_engine: LightweightEngine, harness: Any) -> None:
        contract.scores_single_letters(lightweight_engine, harness)

    def test_scores_texts_behind_a_cached_context(self, lightweight_engine: LightweightEngine, harness: Any) -> None:
        contract.scores_texts_behind_a_cached_context(lightweight_engine, harness)

    def test_scores_again_what_the_cache_covers(self, lightweight_engine: LightweightEngine, harness: Any) -> None:
        contract.scores_again_what_the_cache_covers(lightweight_engine, harness)

    def test_scores_more_choices_than_one_request_takes(
        self, lightweight_engine: LightweightEngine, harness: Any
    ) -> None:
        contract.scores_more_choices_than_one_request_takes(lightweight_engine, harness)

    def test_scores_without_context(self, lightweight_engine: LightweightEngine, harness: Any) -> None:
        contract.scores_without_context(lightweight_engine, harness)

    def test_moves_spaces_to_the_continuation(self, lightweight_engine: LightweightEngine, harness: Any) -> None:
        contract.moves_spaces_to_the_continuation(lightweight_engine, harness)

    def test_drops_what_does_not_fit(self, lightweight_engine: LightweightEngine, harness: Any) -> None:
        contract.drops_what_does_not_fit(lightweight_engine, harness)

    def test_scores_a_text_in_windows(self, lightweight_engine: LightweightEngine, harness: Any) -> None:
        contract.scores_a_text_in_windows(lightweight_engine, harness)

    def test_answers_what_it_cannot_serve(self, lightweight_engine: LightweightEngine) -> None:
        contract.answers_what_it_cannot_serve(lightweight_engine)

    def test_serves_two_threads(self, lightweight_engine: LightweightEngine) -> None:
        contract.serves_two_threads(lightweight_engine)

    def test_survives_a_caller_that_stops_early(self, lightweight_engine: LightweightEngine) -> None:
        contract.survives_a_caller_that_stops_early(lightweight_engine)

    def test_counts_what_it_answers(self, lightweight_engine: LightweightEngine) -> None:
        contract.counts_what_it_answers(lightweight_engine)

    def test_shows_what_runs_and_sums_it_up(self, lightweight_engine: LightweightEngine) -> None:
        """The weights alone are 540 MB in float32."""
        begin = time.time()
        with Monitor([engine_reader(lightweight_engine.stats), HostReader()], seconds=0.2) as monitor:
            contract.shows_what_runs(lightweight_engine)
        found = summarise(monitor.readings(), begin, time.time())
        assert found["engine_rss_peak_bytes"] > 540e6
        assert 0 < found["running_mean"] <= 80
        assert found["generation_tokens_per_second"] > found["prompt_tokens_per_second"] > 0
        assert 0 < found["kv_cache_usage_peak"] <= 1
        assert 0 < found["host_cpu_mean"] <= 100


@pytest.mark.vllm
def test_a_killed_engine_core_is_a_dead_engine(lightweight_engine: LightweightEngine) -> None:
    """The end of the module's engine."""
    pid = int(lightweight_engine.stats()["pid"])
    (core,) = [child for child in psutil.Process(pid).children() if "EngineCore" in child.name()]
    core.kill()
    with pytest.raises(EngineDiedError, match="engine core ended"):
        list(lightweight_engine.run([Generate("a", "b", Sampling(max_tokens=300))]))
    lightweight_engine.close()
    assert group_of(pid) == []


@pytest.mark.vllm
@pytest.mark.slow
def test_a_prewarmed_process_has_vllm_before_its_device_and_leaves_nothing(smollm2: Path, tmp_path: Path) -> None:
    """Slots reach it when the model is opened; closed, it is gone with its files, its shared memory and the slots."""
    claim = Claim(prewarmed("cpu"))
    others = psutil.Process().children()
    claim.begin()
    (waiting,) = (each for each in psutil.Process().children() if each not in others and MODULE in each.cmdline())
    while waiting.memory_info().rss < 400e6:  # vLLM and torch
        assert not gone([waiting], 0.05)
    slot = os.open(tmp_path / "0.slot", os.O_RDWR | os.O_CREAT)
    fcntl.flock(slot, fcntl.LOCK_EX)
    engine = LightweightEngine(config(smollm2), (slot,))
    info = engine.open()
    os.close(slot)
    claim.end()
    assert info.detail["pid"] == waiting.pid
    scratch = Path(waiting.environ()[SCRATCH])
    assert list(scratch.glob("*")), "vLLM's sockets are in its own folder"
    assert is_locked(tmp_path / "0.slot")
    assert [r.id for r in engine.run([Generate("a", "1 2 3", Sampling(max_tokens=2))])] == ["a"]
    group = group_of(waiting.pid)
    shared = shared_memory_of(waiting.pid, 0.0)
    assert shared
    engine.close()
    assert gone(group, 0)
    assert not scratch.exists()
    assert not is_locked(tmp_path / "0.slot")
    assert not any(path.exists() for path in shared)


def is_locked(path: Path) -> bool:
    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


@pytest.mark.vllm
def test_a_killed_process_raises_in_every_call_and_leaves_nothing(smollm2: Path) -> None:
    engine = LightweightEngine(config(smollm2))
    pid = engine.open().detail["pid"]
    group = group_of(pid)
    busy = iter(engine.run([Generate(str(n), f"{n}", Sampling(max_tokens=400)) for n in range(200)]))
    threading.Timer(1.0, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(EngineDiedError, match="killed by SIGKILL"):
        list(busy)
    with pytest.raises(EngineDiedError, match="killed by SIGKILL"):
        next(iter(engine.run([Loglikelihood("a", "b", " c")])))
    engine.close()
    assert len(group) > 1
    assert gone(group, 20)


@pytest.mark.vllm
@pytest.mark.slow
def test_a_killed_parent_leaves_no_process(smollm2: Path, tmp_path: Path) -> None:
    script = """
import json, sys, tempfile
tempfile.tempdir = sys.argv[2]
from engines.engine import EngineConfig
from engines.host.folder import SCRATCH, shared_memory_of
from engines.process.lightweight import LightweightEngine, prewarmed
from engines.process.lightweight import Claim
engine = LightweightEngine(EngineConfig(**json.loads(sys.argv[1])))
print(engine.open().detail["pid"], flush=True)
sys.stdin.read()
"""
    arguments = json.dumps({"model": str(smollm2), "max_model_len": WINDOW, "device": "cpu", "gpu_memory_gb": 3})
    with killed_at_the_end(script, arguments, str(tmp_path)) as pid:
        group = group_of(int(pid))
    assert len(group) > 1
    assert gone(group, 60)


def test_a_model_that_does_not_load_says_why(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no_such_model"}))
    engine = LightweightEngine(config(tmp_path))
    with pytest.raises(EngineDiedError, match="no_such_model"):
        engine.open()
    engine.close()


def test_closing_while_it_loads_ends_the_process(tmp_path: Path) -> None:
    engine = LightweightEngine(config(tmp_path))
    before = {child.pid for child in psutil.Process().children()}
    failures: list[BaseException] = []

    def load() -> None:
        try:
            engine.open()
        except EngineDiedError as error:
            failures.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    while not (started := [child for child in psutil.Process().children() if child.pid not in before]):
        thread.join(0.01)
    engine.close()
    thread.join()
    assert "closed" in str(failures[0])
    assert gone(started, 0)


def test_an_engine_that_is_not_open_refuses_to_run(tmp_path: Path) -> None:
    with pytest.raises(EngineDiedError, match="not open"):
        next(iter(LightweightEngine(config(tmp_path)).run([Loglikelihood("a", "b", " c")])))


def test_device_indices_count_within_the_visible_devices() -> None:
    two = EngineConfig(model="m", devices=(0, 2))
    assert device_environment(two, {"CUDA_VISIBLE_DEVICES": "4,5,7"})["CUDA_VISIBLE_DEVICES"] == "4,7"
    assert device_environment(two, {})["CUDA_VISIBLE_DEVICES"] == "0,2"


def test_a_cpu_engine_sets_no_devices() -> None:
    assert device_environment(EngineConfig(model="m", device="cpu", devices=(1,)), {}) == {}


def test_the_parent_side_imports_no_vllm() -> None:
    code = "import sys, engines.process.lightweight; sys.exit(bool({'vllm', 'torch', 'ray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.vllm
@pytest.mark.slow
def test_weights_that_are_not_numbers_are_refused_when_they_are_loaded(smollm2: Path, tmp_path: Path) -> None:
    """Text would be generated from them without a word; the last layer's are enough."""
    import torch
    from safetensors.torch import load_file, save_file

    damaged = tmp_path / "damaged"
    shutil.copytree(smollm2, damaged)
    weights = load_file(damaged / "model.safetensors")
    weights["model.layers.29.self_attn.o_proj.weight"].fill_(torch.nan)
    save_file(weights, damaged / "model.safetensors", {"format": "pt"})
    engine = LightweightEngine(config(damaged))
    with pytest.raises(UserError, match=r"log-probabilities are not numbers \(NaN\): .* or overflow in float32"):
        engine.open()
    engine.close()
