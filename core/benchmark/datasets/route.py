"""Routes of ``datasets.load_dataset`` while a benchmark is loaded: from mirror, cache or hub, at the pinned revision.

lm-eval's tasks, in YAML and in Python alike, call that one function; ours stands in its place and asks the route that is active.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Any

from core.benchmark.datasets.call import COMMIT, DatasetCall, LoadedDataset, call_of, commit_of
from core.benchmark.datasets.mirror import Mirror
from core.errors import UserError
from core.spec.parts import DatasetsSpec

_ACTIVE: ContextVar[Route | None] = ContextVar("route", default=None)


class Route:
    """Answers the calls of one benchmark. ``loaded`` keeps what came, ``save_to`` a mirror that gets a copy of it."""

    def __init__(
        self, spec: DatasetsSpec | None = None, revision: str | None = None, save_to: Mirror | None = None
    ) -> None:
        spec = spec or DatasetsSpec()
        self._mirror = Mirror(spec.mirror) if spec.mirror else None
        self._offline, self._revision, self._save_to = spec.offline, revision, save_to
        self.loaded: list[LoadedDataset] = []
        self.splits: tuple[str, ...] = ()  # of what was loaded last

    @contextmanager
    def active(self) -> Iterator[None]:
        """Answer the calls that this thread makes meanwhile."""
        token = _ACTIVE.set(self)
        try:
            yield
        finally:
            _ACTIVE.reset(token)

    def load(self, load_dataset: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        """Load one dataset; ``load_dataset`` is the library's. Raises `core.errors.UserError` where it cannot be had as asked."""
        call = call_of(arguments, self._revision)
        found = self._mirror.find(call) if self._mirror else None
        if self._mirror and found:
            dataset, revision, place = self._mirror.load(call, found, load_dataset), found.revision, self._mirror.uri
        elif call.repository:
            dataset, place = self._from_hub(load_dataset, call, arguments)
            revision = commit_of(dataset, call.repository)
        else:
            with without_hub(self._offline):
                dataset, revision, place = load_dataset(**arguments), None, call.kind
        self.splits = tuple(map(str, dataset)) if isinstance(dataset, Mapping) else ()
        if self._save_to and call.repository and not self._save_to.holds(call, revision):
            self._save_to.save(call, dataset, revision)
        entry = LoadedDataset(call.source, call.name, revision, place)
        if entry not in self.loaded:
            self.loaded.append(entry)
        return dataset

    def _from_hub(
        self, load_dataset: Callable[..., Any], call: DatasetCall, arguments: dict[str, Any]
    ) -> tuple[Any, str]:
        """Load from the hub, or from the cache that it left on this machine. Returns rows and place."""
        offline = self._offline or hub_fault() is not None
        if offline and (call.kind == "files" or call.revision is not None):
            return _from_cache(call, why_offline(self._offline)), "cache"
        with without_hub(offline):
            dataset = load_dataset(**arguments | ({"revision": call.revision} if call.revision else {}))
        commit = commit_of(dataset, call.repository)
        if call.revision and COMMIT.fullmatch(call.revision) and commit not in (None, call.revision):
            raise UserError(
                f"dataset {call.label!r}: revision {commit} came instead; the hub stopped to answer, run again"
            )
        return dataset, "cache" if offline else "hub"


def why_offline(asked: bool) -> str:
    """Return why the hub is not asked."""
    return "datasets.offline is set" if asked else f"the hub does not answer ({hub_fault()})"


def install() -> None:
    """Put the active route in the place of ``datasets.load_dataset``, once; without an active route it is the library's own."""
    import datasets

    original = datasets.load_dataset
    if hasattr(original, "steelyard"):
        return
    signature = inspect.signature(original)

    @wraps(original)
    def load_dataset(*args: Any, **kwargs: Any) -> Any:
        route = _ACTIVE.get()
        if route is None:
            return original(*args, **kwargs)
        given = dict(signature.bind(*args, **kwargs).arguments)
        return route.load(original, given | given.pop("config_kwargs", {}))

    load_dataset.steelyard = True  # type: ignore[attr-defined]
    datasets.load_dataset = load_dataset


@contextmanager
def without_hub(wanted: bool) -> Iterator[None]:
    """Keep the library off the network. It reads the environment once. The hub's own switch would stop weights on their way."""
    from datasets import config

    before = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = wanted or before
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before


def cached(call: DatasetCall) -> list[Path]:
    """Folders of the library's cache that hold a hub dataset's rows, of the pinned commit where there is a pin."""
    from datasets import config
    from datasets.naming import camelcase_to_snakecase

    if call.kind != "hub":
        return []
    *namespace, name = call.path.split("/")
    root = Path(config.HF_DATASETS_CACHE).expanduser() / "___".join([*namespace, camelcase_to_snakecase(name)])
    found = [folder for folder in root.glob(f"{call.name or '*'}*/*/*") if (folder / "dataset_info.json").is_file()]
    if call.revision is None:
        return found
    return [folder for folder in found if folder.name == known_commit(call)]


def known_commit(call: DatasetCall) -> str | None:
    """Return the commit of a pinned revision as far as this machine knows it."""
    from huggingface_hub import constants

    if call.revision is None or COMMIT.fullmatch(call.revision):
        return call.revision
    refs = Path(constants.HF_HUB_CACHE) / f"datasets--{call.path.replace('/', '--')}" / "refs" / call.revision
    return refs.read_text(encoding="utf-8").strip() if refs.is_file() else None


def _from_cache(call: DatasetCall, why: str) -> Any:
    """Read exactly the pinned commit; left to itself the library takes the newest that it finds."""
    from datasets.packaged_modules.cache.cache import Cache

    folders = cached(call)
    if len(folders) != 1:
        held = f"holds {len(folders)} configs of it; name one with dataset_name" if folders else "does not hold it"
        raise UserError(f"dataset {call.label!r}: {why}, and the cache on this machine {held}")
    config, version, commit = folders[0].parts[-3:]
    builder = Cache(
        dataset_name=call.path.split("/")[-1], repo_id=call.path, config_name=config, version=version, hash=commit
    )
    return builder.as_dataset(split=call.options.get("split"))


PROBE_SECONDS = 5
KEPT_SECONDS = 60
_last: tuple[float, str | None] | None = None


def hub_fault() -> str | None:
    """Return why the hub cannot be asked, None where it answers. Takes 5 s at most, and holds for a minute."""
    global _last
    from huggingface_hub import constants, get_session

    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    if _last is None or time.monotonic() - _last[0] > KEPT_SECONDS:
        try:
            get_session().head(constants.ENDPOINT, timeout=PROBE_SECONDS)
            fault = None
        except Exception as error:  # its HTTP client's errors have no base that stays
            fault = type(error).__name__
        _last = (time.monotonic(), fault)
    return _last[1]
