"""How many replicas, when they come and go, and whether engines start eagerly: by the amount of work."""

from dataclasses import replace
from typing import Any

import pytest

from core.campaign import FleetSpec, ModelSpec, PolicySpec
from core.errors import UserError
from core.model.placement import Placement, place
from core.model.sizing import docs_of, replica_change, replicas_paid, starts_eagerly, tokens_ahead, with_replicas
from core.request import Generate, Loglikelihood, LoglikelihoodRolling, Request, Sampling
from tests.core.real_configs import real

NODE = FleetSpec(gpus=8, gpu_memory_gb=80, device="cuda")
POLICY = PolicySpec()
ALONE = Placement("lightweight", 1, 1, 1, 4096, "bfloat16", 10**9, "fits.")
GPUS = FleetSpec(device="cuda")
COMPILES = PolicySpec(compile_tokens=1000)


def spread(docs: int | None, replicas: int | None = None, fleet: FleetSpec = NODE, **policy: Any) -> Placement:
    model = ModelSpec(model="m", replicas=replicas)
    rules = PolicySpec(**policy)
    return with_replicas(place(real("Qwen3-0.6B"), model, fleet, rules), model, fleet, rules, docs)


@pytest.mark.parametrize(("docs", "expected"), [(0, 1), (999, 1), (1000, 2), (1600, 3), (100_000, 8)])
def test_a_replica_more_for_so_many_docs_more(docs: int, expected: int) -> None:
    assert spread(docs).replicas == expected


def test_the_reason_says_how_many_and_why() -> None:
    assert spread(1600).reason.endswith("Up to 3 replicas where devices are idle: 1,600 docs, one per 500.")
    assert spread(None).reason.endswith("Up to 8 replicas where devices are idle, one per 500 docs.")
    assert spread(100, replicas=2).reason.endswith("Up to 2 replicas where devices are idle, as asked for.")
    assert "replica" not in spread(100).reason


def test_a_person_may_ask_for_more_and_for_fewer() -> None:
    assert spread(100, replicas=4).replicas == 4
    assert spread(100_000, replicas=2).replicas == 2
    assert spread(100_000, replicas=1).replicas == 1
    assert spread(100_000, replicas=99).replicas == 8  # that many devices there are


def test_the_policy_bounds_them() -> None:
    assert spread(100_000, replicas_max=1).replicas == 1
    assert spread(100, docs_per_replica=10, replicas_max=4).replicas == 4


def test_all_nodes_of_a_fleet_without_gpus_are_here_and_those_of_others_are_not() -> None:
    assert spread(None, fleet=FleetSpec(nodes=2, gpus=2, gpu_memory_gb=8, device="cpu")).replicas == 4
    assert spread(None, fleet=FleetSpec(nodes=2, gpus=2, gpu_memory_gb=80, device="cuda")).replicas == 2


@pytest.mark.parametrize(("asked", "expected"), [(None, 1), (2, 2), (9, 2)])
def test_a_distributed_model_has_those_that_a_person_asks_for_and_gpus_are_there_for(
    asked: int | None, expected: int
) -> None:
    model = ModelSpec(model="m", engine="distributed", tensor_parallel=4, replicas=asked)
    large = with_replicas(place(real("Llama-3.1-70B"), model, NODE, POLICY), model, NODE, POLICY, docs=100_000)
    assert (large.replicas, large.replica_gpus, large.gpus) == (expected, 4, 4 * expected)


@pytest.mark.parametrize("where", [{"ray_address": "head:6379"}, {"kuberay": {"image": "i"}}])
def test_a_ray_cluster_that_is_there_has_one_service_of_a_model(where: dict[str, Any]) -> None:
    asked = ModelSpec(model="m", engine="distributed", tensor_parallel=2, replicas=2)
    fleet = FleetSpec(gpus=8, gpu_memory_gb=80, device="cuda", **where)
    with pytest.raises(UserError, match="replicas = 2: a distributed model has one service on a Ray cluster"):
        with_replicas(place(real("Llama-3.1-70B"), asked, fleet, POLICY), asked, fleet, POLICY)


def test_a_model_waits_for_one_replicas_gpus() -> None:
    found = spread(100_000)
    assert (found.gpus, found.replica_gpus) == (8, 1)


def test_work_is_counted_in_docs() -> None:
    choices = [Loglikelihood(f"{n}", "question", f" {n}") for n in range(4)]
    answers = [Generate(f"g{n}", "question", Sampling()) for n in range(3)]
    assert docs_of([*choices, *answers, LoglikelihoodRolling("t", "text")]) == 5
    assert docs_of(choices[:1]) == 1
    assert docs_of([]) == 0


@pytest.mark.parametrize(
    ("have", "most", "paid", "lacking", "expected"),
    [
        (1, 4, 4, 0, 3),
        (2, 4, 3, 0, 1),
        (3, 4, 1, 0, 0),  # what has come stays while nobody wants its device
        (4, 4, 9, 0, 0),
        (3, 4, 4, 1, -1),
        (3, 4, 4, 9, -2),  # the last one stays
        (1, 4, 4, 2, 0),
        (0, 4, 4, 2, 0),  # dead
        (0, 4, 4, 0, 0),
    ],
)
def test_replicas_come_where_it_pays_and_go_where_others_wait(
    have: int, most: int, paid: int, lacking: int, expected: int
) -> None:
    assert replica_change(have=have, most=most, paid=paid, lacking=lacking) == expected


def test_as_many_replicas_leave_as_have_the_devices_that_others_wait_for() -> None:
    assert replica_change(have=4, most=4, paid=4, lacking=3, gpus=2) == -2


def test_what_a_person_asked_for_pays_while_there_is_work() -> None:
    asked = ModelSpec(model="m", replicas=3)
    assert [replicas_paid(asked, POLICY, docs) for docs in (None, 10, 0)] == [3, 3, 0]


def test_a_generation_counts_its_longest_answer_and_a_score_one_step() -> None:
    requests: list[Request] = [
        Generate("a", "b", Sampling(max_tokens=200)),
        Loglikelihood("c", "d", " e"),
        LoglikelihoodRolling("f", "g"),
    ]
    assert tokens_ahead(requests) == 202
    assert tokens_ahead([]) == 0


def test_little_work_starts_eagerly_and_says_so() -> None:
    why = starts_eagerly(ALONE, {}, GPUS, COMPILES, 999)
    assert why == "starts eagerly: at most 999 tokens to generate (compiled from 1,000)"


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [
        ({}, 1000),
        ({"placement": replace(ALONE, engine="distributed")}, 1),
        ({"fleet": FleetSpec(device="cpu")}, 1),
        ({"vllm": {"enforce_eager": False}}, 1),
        ({"vllm": {"enforce_eager": True}}, 1),
        ({"policy": PolicySpec(compile_tokens=0)}, 0),
    ],
)
def test_all_else_stays_as_it_is(changes: dict[str, Any], tokens: int) -> None:
    given: dict[str, Any] = {"placement": ALONE, "vllm": {}, "fleet": GPUS, "policy": COMPILES, **changes}
    assert starts_eagerly(given["placement"], given["vllm"], given["fleet"], given["policy"], tokens) is None
