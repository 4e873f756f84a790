"""The one protocol both engines satisfy, and the configuration they open with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from core.model.checkpoint import Checkpoint
from core.request import Request, Response
from engines.control import Stop

FETCHING = "steelyard_fetching"  # the load format of `engines.session.worker`


@dataclass(frozen=True)
class EngineConfig:
    """Everything an engine needs to load one checkpoint. Plain JSON values, so it crosses processes as is.

    ``model`` is a local directory or a hub id. ``checkpoint`` describes it where that has to be known: with ``stream`` the
    weights come from its source on S3, and nodes of a Ray cluster that lack the directory fetch it. ``device`` is ``"cuda"`` or
    ``"cpu"``; ``devices`` are the GPU indices given to a lightweight engine (on a CPU, logical ones), ``cores`` the CPU cores that
    it keeps to, any where empty. ``gpu_memory_gb`` is the memory of one device in GB (on a CPU, the part of RAM one logical device
    may use). ``extra`` goes to vLLM's engine arguments untouched and wins over every other field.
    """

    model: str
    revision: str | None = None
    dtype: str = "auto"
    max_model_len: int | None = None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    trust_remote_code: bool = False
    device: str = "cuda"
    devices: tuple[int, ...] = ()
    cores: tuple[int, ...] = ()
    gpu_memory_gb: float | None = None
    seed: int = 0
    checkpoint: Checkpoint | None = None
    stream: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EngineInfo:
    """The engine that was opened: facts for the results, not for control flow. ``load_seconds`` is 0 for a service found alive."""

    engine: str  # "lightweight" | "distributed" | a test's own
    vllm_version: str
    max_model_len: int
    dtype: str
    load_seconds: float
    reused: bool = False
    detail: dict[str, Any] = field(default_factory=dict)  # e.g. Ray address, pid, which of vLLM's model runners


@runtime_checkable
class Engine(Protocol):
    """A loaded model that answers requests.

    ``run`` may be called from several threads at once; each call yields its own responses as they finish, in any order, one per
    request. A request that cannot be served (longer than the window, say) is answered with ``error`` set; a dead engine raises
    `core.errors.EngineDiedError` from every call. Closing an iterator early, or setting ``stop`` from any thread, aborts what it
    still had in flight; after the latter it ends, and what finished before is still yielded.
    """

    def open(self) -> EngineInfo:
        """Load the model; blocks until it answers. Raises `core.errors.EngineDiedError` with the cause."""

    def run(self, requests: Sequence[Request], stop: Stop | None = None) -> Iterator[Response]:
        """Yield one response per request as each finishes."""

    def stats(self) -> dict[str, float]:
        """Latest known figures; never blocks, for any thread. Empty before ``open``, and any key may be missing.

        ``pid`` (of the engine's process on this machine), ``started`` and ``ended`` (of that process, unix seconds; the latter
        once it is gone); from when the model is loaded, ``running`` and ``waiting`` (requests), ``kv_cache_usage`` (0 to 1), and
        counted since it was loaded: ``prefix_cache_queries`` and ``prefix_cache_hits`` (prompt tokens looked up and found),
        ``prompt_tokens`` (cached ones too) and ``generation_tokens``. A distributed engine adds ``ray_nodes``, ``ray_cpus``,
        ``ray_cpus_used``, ``ray_gpus`` and ``ray_gpus_used`` of its cluster.
        """

    def close(self, *, keep: bool = True) -> None:
        """Free the engine and its memory. Safe to call twice, from another thread, and while ``run`` is under way.

        ``keep=False`` ends a service too that would else stay loaded for the next campaign.
        """
