"""Pages that a task's code reads with ``requests``, such as SQuAD's questions: kept, so that machines without network have them.

They are files named by a digest of their URL, in ``pages/`` of this machine's cache and of a mirror.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from core.benchmark.datasets.mirror import Mirror
from core.errors import UserError
from core.storage.open import cache_dir

MEND = "run 'steelyard datasets fetch' where there is a network, with --to MIRROR for other machines"


def keep_pages(mirrors: Sequence[Mirror], *, save: bool, offline: bool) -> None:
    """Look for pages in ``mirrors`` first, keep what the network gives, and take that where it is silent: in this process.

    With ``save`` the first mirror gets a copy; ``offline`` keeps the code off the network.
    """
    import requests

    original = requests.Session.request

    @wraps(original)
    def request(self: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        if method.upper() != "GET":
            return original(self, method, url, *args, **kwargs)
        full = str(requests.Request("GET", url, params=kwargs.get("params")).prepare().url)
        name = hashlib.sha256(full.encode()).hexdigest()
        kept = cache_dir() / "pages" / name
        for mirror in mirrors:
            if (page := mirror.page(name)) is not None:
                return _response(url, page)
        try:
            if offline:
                raise requests.ConnectionError("datasets.offline is set")
            response = original(self, method, url, *args, **kwargs)
        except (requests.ConnectionError, requests.Timeout) as error:
            if not kept.is_file():
                why = "datasets.offline is set" if offline else f"it does not answer ({type(error).__name__})"
                raise UserError(f"{url}: {why}, and no copy of it is here: {MEND}") from error
            return _response(url, kept.read_bytes())
        if response.status_code == requests.codes.ok and not kwargs.get("stream"):
            _keep(kept, response.content)
            if save:
                mirrors[0].save_page(name, kept)
        return response

    requests.Session.request = request  # type: ignore


def _keep(file: Path, page: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_name(f"{file.name}.new")
    scratch.write_bytes(page)
    scratch.replace(file)


def _response(url: str, page: bytes) -> Any:
    import requests

    response: Any = requests.Response()
    response.status_code, response.url, response._content = requests.codes.ok, url, page
    return response
