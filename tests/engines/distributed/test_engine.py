"""The distributed engine: real tensor-parallel vLLM on a real local Ray cluster."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.errors import EngineDiedError, UserError
from core.request import Generate, Loglikelihood, Sampling
from engines.control import Stop
from engines.distributed.cluster import ClusterSpec, local_clusters
from engines.distributed.engine import DistributedEngine, service_name
from engines.engine import Engine, EngineConfig
from tests.engines import contract
from tests.engines.conftest import WINDOW
from tests.processes import gone, killed_at_the_end, nothing_left, running, started_since

ROOT = Path(__file__).resolve().parents[3]
CLUSTER = ClusterSpec((0, 1), 2, "cpu")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def config(model: Path) -> EngineConfig:
    return EngineConfig(
        model=str(model), dtype="float32", max_model_len=WINDOW, device="cpu", gpu_memory_gb=3, tensor_parallel=2
    )


@pytest.fixture(scope="module")
def before() -> dict[int, psutil.Process]:
    return running()


@pytest.fixture(scope="module")
def distributed_engine(padded_smollm2: Path, before: dict[int, psutil.Process]) -> Iterator[DistributedEngine]:
    engine = DistributedEngine(config(padded_smollm2), CLUSTER, idle_seconds=0)
    engine.open()
    yield engine
    engine.close()


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs of engines that died stay with the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def maps_of(process: psutil.Process) -> list[str]:
    with suppress(OSError):
        return Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    return []


@pytest.mark.vllm
class TestContract:
    def test_is_an_engine(self, distributed_engine: DistributedEngine) -> None:
        assert isinstance(distributed_engine, Engine)

    def test_what_its_ranks_share_has_no_name_any_more(self, distributed_engine: DistributedEngine) -> None:
        """So it goes with them, however they end."""
        maps = [line for process in running().values() for line in maps_of(process)]
        shared = [line for line in maps if "cpushm_" in line or "/psm_" in line]
        assert len(shared) >= 8
        assert all(line.endswith("(deleted)") for line in shared)

    def test_its_sockets_lie_in_a_folder_that_goes_with_the_cluster(
        self, distributed_engine: DistributedEngine
    ) -> None:
        names = [line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if "/" in line]
        sockets = [Path(name) for name in names if UUID.fullmatch(Path(name).name) and Path(name).exists()]
        ours = [path for path in sockets if path.parent.name.startswith("sy-ray-")]
        assert len(ours) >= 8

    def test_generates_what_the_model_knows(self, distributed_engine: DistributedEngine) -> None:
        contract.generates_what_the_model_knows(distributed_engine)

    def test_scores_single_letters(self, distributed_engine: DistributedEngine, harness: Any) -> None:
        contract.scores_single_letters(distributed_engine, harness)

    def test_scores_texts_behind_a_cached_context(self, distributed_engine: DistributedEngine, harness: Any) -> None:
        contract.scores_texts_behind_a_cached_context(distributed_engine, harness)

    def test_scores_a_text_in_windows(self, distributed_engine: DistributedEngine, harness: Any) -> None:
        contract.scores_a_text_in_windows(distributed_engine, harness)

    def test_answers_what_it_cannot_serve(self, distributed_engine: DistributedEngine) -> None:
        contract.answers_what_it_cannot_serve(distributed_engine)

    def test_serves_two_threads(self, distributed_engine: DistributedEngine) -> None:
        contract.serves_two_threads(distributed_engine)

    def test_survives_a_caller_that_stops_early(self, distributed_engine: DistributedEngine) -> None:
        contract.survives_a_caller_that_stops_early(distributed_engine)

    def test_counts_what_it_answers(self, distributed_engine: DistributedEngine) -> None:
        contract.counts_what_it_answers(distributed_engine)

    def test_shows_what_runs(self, distributed_engine: DistributedEngine) -> None:
        contract.shows_what_runs(distributed_engine)


@pytest.mark.vllm
def test_a_second_client_finds_the_service_and_leaves_it_to_the_first(
    distributed_engine: DistributedEngine, padded_smollm2: Path
) -> None:
    second = DistributedEngine(config(padded_smollm2), CLUSTER, idle_seconds=0)
    info = second.open()
    assert info.reused
    assert info.load_seconds == 0
    contract.generates_what_the_model_knows(second)
    is_served_beside_much_work(second, of=distributed_engine)
    second.close()
    contract.generates_what_the_model_knows(distributed_engine)


def is_served_beside_much_work(engine: DistributedEngine, of: DistributedEngine) -> None:
    """As requests of one client, the shorter generation would be the last to start."""
    many = [Generate(str(n), f"Number {n} is", Sampling(max_tokens=2)) for n in range(4000)]
    stop, came = Stop(), threading.Event()
    done = 0

    def work() -> None:
        nonlocal done
        for _ in of.run(many, stop):
            done += 1
            came.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert came.wait(60)
    contract.answer(engine, [Generate("late", "The capital of France is", Sampling(max_tokens=1))])
    stop.set()
    thread.join()
    assert done < len(many) / 2


@pytest.mark.vllm
def test_a_kept_service_is_found_again_until_its_engine_dies(
    distributed_engine: DistributedEngine, padded_smollm2: Path, before: dict[int, psutil.Process]
) -> None:
    """Its last client says how long it is kept."""
    last = DistributedEngine(config(padded_smollm2), CLUSTER, idle_seconds=600)
    assert last.open().reused
    distributed_engine.close()
    last.close()
    (cluster,) = local_clusters()
    assert cluster.clients == 0
    assert cluster.models == (service_name(config(padded_smollm2)),)

    again = DistributedEngine(config(padded_smollm2), CLUSTER, idle_seconds=600)
    assert again.open().reused
    (core,) = [process for process in started_since(before) if "EngineCore" in process.name()]
    core.kill()
    with pytest.raises(EngineDiedError, match="engine core ended"):
        list(again.run([Generate("a", "b", Sampling(max_tokens=300))]))
    again.close()
    assert nothing_left(before)


@pytest.mark.vllm
@pytest.mark.slow
def test_a_killed_campaign_leaves_no_process(padded_smollm2: Path, tmp_path: Path) -> None:
    script = """
import json, sys, tempfile
tempfile.tempdir = sys.argv[2]
from engines.engine import EngineConfig
from engines.distributed.cluster import ClusterSpec
from engines.distributed.engine import DistributedEngine
engine = DistributedEngine(EngineConfig(**json.loads(sys.argv[1])), ClusterSpec((0, 1), 2, "cpu"), 600)
engine.open()
print("open", flush=True)
sys.stdin.read()
"""
    before = running()
    arguments = json.dumps(asdict(config(padded_smollm2)))
    with killed_at_the_end(script, arguments, str(tmp_path)) as said:
        assert said == "open\n"
        started = started_since(before)
    assert len(started) > 5
    assert gone(started, 60)
    assert nothing_left(before)


def test_a_model_that_does_not_load_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    before = running()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no_such_model"}))
    engine = DistributedEngine(config(tmp_path), CLUSTER, idle_seconds=600)
    with pytest.raises(EngineDiedError, match="no_such_model"):
        engine.open()
    assert nothing_left(before)


def test_an_address_where_nothing_listens_is_refused(tmp_path: Path) -> None:
    engine = DistributedEngine(config(tmp_path), ClusterSpec((), 2, "cpu", "127.0.0.1:1"), idle_seconds=0)
    with pytest.raises(UserError, match="fleet.ray_address = '127.0.0.1:1': no answer"):
        engine.open()


def test_an_engine_that_is_not_open_refuses_to_run(tmp_path: Path) -> None:
    with pytest.raises(EngineDiedError, match="not open"):
        next(iter(DistributedEngine(config(tmp_path), CLUSTER, 0).run([Loglikelihood("a", "b", " c")])))


def test_the_parent_side_imports_neither_vllm_nor_ray() -> None:
    code = "import sys, engines.distributed.engine; sys.exit(bool({'vllm', 'torch', 'ray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
