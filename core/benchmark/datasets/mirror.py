"""Mirrors of hub datasets, in a directory or on S3.

MIRROR/openai--gsm8k/                     the newest revision there was; MIRROR/openai--gsm8k@REVISION/ one that was asked for
    main/                                 one config, as ``save_to_disk`` writes it, with steelyard.json that names its commit
MIRROR/org--name/README.md, data/…        or the files of the hub's repository as they are, say from ``hf download``
MIRROR/pages/DIGEST                       a page that a task's code reads (`core.benchmark.datasets.web`)
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.benchmark.datasets.call import HUB_URL, DatasetCall
from core.errors import UserError
from core.storage.open import cache_dir, open_filesystem
from core.storage.s3 import explanation, is_s3_error
from core.storage.storage import within

RECORD = "steelyard.json"
PAGES = "pages"
LISTING_SECONDS = 60
SAVED = ("dataset_dict.json", "state.json")  # one of them marks what save_to_disk has written


@dataclass(frozen=True)
class MirrorEntry:
    """A dataset's place in a mirror. ``prefix`` is relative to it; ``saved`` tells save_to_disk's format from plain files."""

    prefix: str
    saved: bool
    revision: str | None


def repository_folders(call: DatasetCall) -> list[str]:
    """Folders of a mirror that may hold a call's rows, the pinned revision's first; none for what is no hub dataset."""
    if call.repository is None:
        return []
    name = call.repository.replace("/", "--")
    return [*([f"{name}@{call.revision.replace('/', '--')}"] if call.revision else []), name]


def locate(names: Collection[str], call: DatasetCall) -> tuple[str, bool] | None:
    """Find a call's rows among a folder's file names: (folder within it, saved or plain), None where they are not there."""
    folders = {str(Path(name).parent) for name in names if Path(name).name in SAVED}
    # The splits of a DatasetDict lie below it.
    tops = {folder for folder in folders if folder == "." or str(Path(folder).parent) not in folders}
    if call.entry in tops:
        return call.entry, True
    if "." in tops and not call.options and call.name is None:
        return ".", True
    return None if tops or not names else (".", False)


class Mirror:
    """A mirror, read and written. Every method raises `core.errors.UserError` where it does not answer."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._files, self._root = open_filesystem(self.uri, attempts=2)
        self._is_local = getattr(self._files, "local_file", False)  # by this fsspec tells its local one

    def check(self) -> None:
        """Raise `core.errors.UserError` where a mirror on this machine is not there."""
        if self._is_local and not self._files.isdir(self._root):
            raise UserError(f"mirror {self.uri!r}: there is no such directory; correct datasets.mirror")

    def find(self, call: DatasetCall) -> MirrorEntry | None:
        """Return where a call's rows lie. Raises `core.errors.UserError` where the mirror holds another revision than the pin."""
        self.check()
        for folder in repository_folders(call):
            located = locate(self._listing(folder), call)
            if located is None:
                continue
            inner, saved = located
            prefix = folder if inner == "." else f"{folder}/{inner}"
            record = self._record(prefix)
            named = folder.partition("@")[2]
            revision = record.get("revision") or (named if named and named == call.revision else None)
            if call.revision is not None and not named and call.revision not in (revision, record.get("asked")):
                raise UserError(
                    f"mirror {self.uri!r} holds {call.repository} at {revision or 'an unknown revision'}, not at "
                    f"{call.revision}: fetch that one with 'steelyard datasets fetch --to', or drop dataset_revision"
                )
            return MirrorEntry(prefix, saved, revision)
        return None

    def load(self, call: DatasetCall, found: MirrorEntry, load_dataset: Any) -> Any:
        """Load what `find` found; ``load_dataset`` is the library's."""
        import datasets

        folder = self._local(found.prefix)
        if found.saved:
            return datasets.load_from_disk(str(folder))
        if call.kind == "files":
            return load_dataset(call.path, call.name, **_within(call.options, folder))
        return load_dataset(str(folder), call.name, **call.options)

    def holds(self, call: DatasetCall, revision: str | None) -> bool:
        """Return whether the mirror has a call's rows already, of this very commit."""
        folder = next(iter(repository_folders(call)), "")
        located = locate(self._listing(folder), call) if folder else None
        if located is None:
            return False
        inner, saved = located
        return not saved or (revision is not None and self._record(f"{folder}/{inner}").get("revision") == revision)

    def save(self, call: DatasetCall, dataset: Any, revision: str | None) -> str:
        """Write a loaded dataset under its repository; the record comes last. Returns the folder within the mirror."""
        folders = repository_folders(call)
        if not folders:
            raise UserError(f"dataset {call.label!r} is no hub dataset: a mirror has no place for it")
        if not hasattr(dataset, "save_to_disk"):
            raise UserError(f"dataset {call.label!r} is streamed: it cannot be mirrored")
        prefix = f"{folders[0]}/{call.entry}"
        scratch = cache_dir() / "datasets" / f"saving-{secrets.token_hex(8)}"
        try:
            dataset.save_to_disk(str(scratch))
            record = {"dataset": call.repository, "config": call.name, "revision": revision, "asked": call.revision}
            (scratch / RECORD).write_text(json.dumps(record), encoding="utf-8")
            self._put(scratch, prefix)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return prefix

    def page(self, name: str) -> bytes | None:
        """Return a page that was saved under ``name``, None where there is none."""
        try:
            with self._explained():
                found: bytes = self._files.cat_file(f"{self._root}/{PAGES}/{name}")
        except FileNotFoundError:
            return None
        return found

    def save_page(self, name: str, file: Path) -> None:
        """Copy a page from local disk."""
        if self._is_local:
            Path(self._root, PAGES).mkdir(parents=True, exist_ok=True)
        with self._explained():
            self._files.put_file(str(file), f"{self._root}/{PAGES}/{name}")

    def _listing(self, folder: str) -> dict[str, str]:
        """Return each file's name below a folder → what changes with its content."""
        above = f"{self._root}/{folder}/"
        try:
            with self._explained():
                entries = self._files.find(above.rstrip("/"), detail=True, timeout=LISTING_SECONDS)
        except FileNotFoundError as error:
            raise UserError(f"mirror {self.uri!r}: there is no such bucket; create it or correct the URI") from error
        return {
            within(key.removeprefix(above)): str(entry.get("ETag") or entry.get("mtime"))
            for key, entry in entries.items()
            if key.startswith(above)
        }

    def _record(self, prefix: str) -> dict[str, Any]:
        try:
            with self._explained():
                text = self._files.cat_file(f"{self._root}/{prefix}/{RECORD}")
        except FileNotFoundError:
            return {}
        try:
            record: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise UserError(f"mirror {self.uri!r}: {prefix}/{RECORD} is not JSON: fetch the dataset again") from error
        return record

    def _local(self, prefix: str) -> Path:
        """A folder of the mirror on local disk; of S3's, a copy that is made once for each content."""
        if self._is_local:
            return Path(self._root, prefix)
        listing = self._listing(prefix)
        digest = hashlib.sha256(json.dumps([self.uri, prefix, sorted(listing.items())]).encode()).hexdigest()
        target = cache_dir() / "datasets" / digest
        if target.is_dir():
            return target
        scratch = target.with_name(f"fetching-{secrets.token_hex(8)}")
        try:
            with self._explained():
                for name in listing:
                    (scratch / name).parent.mkdir(parents=True, exist_ok=True)
                    self._files.get_file(f"{self._root}/{prefix}/{name}", str(scratch / name))
            try:
                scratch.rename(target)
            except OSError:
                if not target.is_dir():  # another process had the same content first
                    raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return target

    def _put(self, folder: Path, prefix: str) -> None:
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        names.sort(key=lambda name: (name == RECORD, Path(name).name in SAVED))  # what marks it whole comes last
        if not self._is_local:
            with self._explained():
                for name in names:
                    self._files.put_file(str(folder / name), f"{self._root}/{prefix}/{name}")
            return
        target = Path(self._root, prefix)
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f".{target.name}-{secrets.token_hex(4)}")
        try:
            shutil.copytree(folder, scratch)
            shutil.rmtree(target, ignore_errors=True)
            scratch.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:
            if not is_s3_error(error):
                raise
            bucket, what = self._root.partition("/")[0], "cannot read or write it"
            reason = f"{error}; check its permissions" if self._is_local else explanation(error, bucket, what)
            raise UserError(f"mirror {self.uri!r}: {reason}") from error


def _within(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Options of a files' call with its hub URLs turned to paths below ``folder``."""

    def local(value: Any) -> Any:
        if isinstance(value, str):
            return HUB_URL.sub(f"{folder}/", value)
        if isinstance(value, list | tuple):
            return [local(each) for each in value]
        return {key: local(each) for key, each in value.items()} if isinstance(value, Mapping) else value

    return {**options, "data_files": local(options.get("data_files"))}
