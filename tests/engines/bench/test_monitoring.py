"""What is read while a model is evaluated, and where it goes. The engine is scripted."""

import asyncio
import socket
import urllib.request
from pathlib import Path
from typing import Any

from core.campaign import CampaignSpec, load_spec
from core.model.fleet import resolve_fleet
from core.monitor.summary import engines_alive
from core.request import Generate, Generated, Request, Response, Sampling
from core.storage.open import open_storage
from core.store.monitor import read_monitor
from engines.bench.monitoring import monitored, summed_up
from engines.host.slots import DevicePool, Held
from tests.scripted_engine import ScriptedEngine


def answer(request: Request) -> Response:
    return Generated(request.id, " 4", "stop", prompt_tokens=5, completion_tokens=2)


def spec_of(tmp_path: Path, **changes: Any) -> CampaignSpec:
    fields = {"name": "n", "models": ["m"], "benchmarks": ["b"], "results": str(tmp_path), "fleet": {"device": "cpu"}}
    return load_spec({**fields, **changes})


def watch(spec: CampaignSpec, look: Any = lambda: None) -> dict[str, float]:
    """Evaluate three requests on a scripted engine; returns the cell's summary."""

    async def main() -> dict[str, float]:
        engine = ScriptedEngine(answer)
        held = Held(DevicePool("cpu", ("0",)), ("0",), ())
        async with monitored(spec, resolve_fleet(spec.fleet), "m", held, engine, "r1") as monitor:
            engine.open()
            with summed_up(monitor) as summary:
                list(engine.run([Generate(f"t/{n}/0/0", "2 + 2 =", Sampling()) for n in range(3)]))
            look()
            engine.close()
        return summary

    return asyncio.run(main())


def test_a_cell_is_summed_up_and_readings_land_beside_the_results(tmp_path: Path) -> None:
    summary = watch(spec_of(tmp_path))
    assert summary["generation_tokens_per_second"] > 0
    table = read_monitor(open_storage(str(tmp_path)), "n", "r1")
    assert {"engine", "host"} <= set(table["source"].to_pylist())
    assert engines_alive(table).most == 1


def test_prometheus_is_served_where_the_spec_asks_and_a_taken_port_is_no_failure(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    seen: list[str] = []

    def look() -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            seen.append(answer.read().decode())

    watch(spec_of(tmp_path, prometheus_port=port), look)
    assert 'metric="generation_tokens",model="m"' in seen[0]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert watch(spec_of(tmp_path, prometheus_port=taken.getsockname()[1]))
