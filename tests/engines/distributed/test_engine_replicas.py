"""A model as several services: real vLLM on real Ray clusters with logical devices."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from core.planning.schedule.turns import Demand
from core.request import Generate, Response, Sampling
from engines.bench.supervisor import Supervisor
from engines.distributed.cluster import ClusterSpec, local_clusters
from engines.distributed.engine import ServiceReplica
from engines.host.queue import Ticket
from engines.host.slots import DevicePool, holders
from tests.engines.distributed.test_engine import config
from tests.waiting import until

POOL = DevicePool("cpu", ("0", "1", "2", "3"))


@pytest.mark.vllm
@pytest.mark.slow
def test_two_services_share_the_work_and_one_that_dies_costs_no_answer(padded_smollm2: Path) -> None:
    held = [taken for label in ("first", "second") if (taken := Ticket(POOL, Demand(label, 2)).take())]
    services = [
        ServiceReplica(config(padded_smollm2), ClusterSpec(each.devices, 4, "cpu"), each.descriptors) for each in held
    ]
    engine = Supervisor(services, in_flight=4)
    requests = [Generate(f"t/{n}/0/0", f"{n} + {n} =", Sampling(max_tokens=24)) for n in range(64)]
    try:
        engine.open()
        until(lambda: engine.serving == 2, seconds=180)
        assert [cluster.devices for cluster in local_clusters()] == [("0", "1"), ("2", "3")]
        answers: list[Response] = []
        for response in engine.run(requests):
            if not answers:
                os.kill(int(services[1].stats()["pid"]), signal.SIGKILL)
            answers.append(response)
    finally:
        engine.close()
        for each in held:
            each.release()
    assert sorted(answer.id for answer in answers) == sorted(request.id for request in requests)
    assert not any(answer.error for answer in answers)
    assert engine.is_gone(services[1])
    assert local_clusters() == []
    assert holders(POOL) == []
