"""What the documentation tells people to type about plans, benchmarks and results is typed, line by line, and works."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from core.monitor.timeline import Span
from core.results import Store, open_store
from core.sample import Cell
from tests.checkpoints import write_checkpoint
from tests.core.store_parts import METADATA, make_scoring
from tests.docs_commands import PAGES, ROOT, commands_of, lines_of

# What starts no engine, needs no server and fetches nothing. `tests/test_examples.py` runs campaigns.
HARMLESS = (
    *("benchmarks", "compare", "datasets list", "gc", "invalidate", "models", "plan", "report", "results", "simulate"),
    "status",
)
EXCHANGES = ("export", "import")
URI, CHECKPOINT, RUNS = "s3://evals/nightly", "/data/llama-70b", ("20261101T000000", "20261102T000000")
MODELS = ("A", "B", "main", "candidate", "llama-70b", "llama-70b-awq", "m")


def typed(*verbs: str) -> list[tuple[str, ...]]:
    """Return the pages' commands of these verbs, each once and as written. Words in capitals stand for names: they are left out."""
    lines = [line for page in PAGES for line in lines_of(page)]
    commands = [tuple(words[1:]) for line in lines for words in commands_of(line) if words[0] == "steelyard"]
    chosen = [words for words in commands if words[0] in verbs or " ".join(words[:2]) in verbs]
    named = [words for words in chosen if not {"DIR", "FILES"} & set(words)]
    return list(dict.fromkeys(named))


def store_cell(store: Store, number: int, model: str, benchmark: str, revision: str = "main", docs: int = 40) -> str:
    fingerprint = f"{number:064x}"
    settings = {"checkpoint": f"digest of {model}", "revision": revision, "dtype": "float32"}
    scoring = make_scoring(docs, 1.0, benchmark)
    store.commit(Cell(fingerprint, model, benchmark, settings), scoring, METADATA)
    return fingerprint


def store_campaign(store: Store, campaign: str, run: str, models: dict[str, str], benchmark: str = "gsm8k") -> None:
    """Store a run that asks for one cell of each model: name → fingerprint."""
    for model, fingerprint in models.items():
        store.write_model_run(campaign, run, {"model": model, "cells": {benchmark: fingerprint}})
        store.write_timeline(campaign, run, [Span(model, "benchmarks", "lightweight", "generate", benchmark, 1.0, 2.0)])
    store.write_campaign({"campaign": campaign, "run": run, "failures": {}, "models": [], "seconds": 2.0})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages name, and the results of their campaigns."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "examples", folder / "examples")
    (folder / "my_tasks").mkdir()
    shutil.copy(ROOT / "examples" / "own_benchmark.yaml", folder / "my_tasks" / "own.yaml")
    for place in ("data", ".demo/smollm2-135m-instruct"):
        checkpoint = write_checkpoint(folder / place)
        words = Tokenizer(WordLevel({"?": 0}, unk_token="?"))
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=words, chat_template="{% for turn in messages %}{{ turn.content }}{% endfor %}"
        )
        tokenizer.save_pretrained(checkpoint)
    for name in ("nightly", "checkpoints", "campaign"):
        spec = {
            "name": name,
            "models": [{"model": str(folder / "data"), "name": "llama-70b"}],
            "benchmarks": [{"name": "steelyard_facts", "limit": 5}],
            "fleet": {"gpus": 8, "gpu_memory_gb": 80, "device": "cpu"},
            "results": str(folder / "nightly"),
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(spec))
    groups = re.findall(r"^    (- \{nodes: .+)", (ROOT / "docs/planning.md").read_text(encoding="utf-8"), re.MULTILINE)
    (folder / "fleet.yaml").write_text("\n".join(groups))
    nightly = open_store(str(folder / "nightly"))
    cells = {model: store_cell(nightly, number, model, "gsm8k") for number, model in enumerate(MODELS)}
    for number, revision in enumerate(("1a2b3c4d", "4d5e6f70"), len(MODELS)):
        cells["model"] = store_cell(nightly, number, "model", "gsm8k", revision)
    for run in RUNS:
        store_campaign(nightly, "nightly", run, cells)
    smollm2 = open_store(str(folder / "results"))
    pair = ("smollm2-135m-instruct", "smollm2-chat")
    named = {model: store_cell(smollm2, number, model, "steelyard_facts") for number, model in enumerate(pair)}
    store_campaign(smollm2, "smollm2", RUNS[0], named, "steelyard_facts")
    return folder


@pytest.fixture
def type_in(
    steelyard: Callable[..., tuple[int, str, str]], world: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[tuple[str, ...]], str]:
    """Type a command's words in the folder of the pages' files; returns what it printed."""
    monkeypatch.chdir(world)

    def type_words(words: tuple[str, ...]) -> str:
        here = [word.replace(URI, str(world / "nightly")).replace(CHECKPOINT, str(world / "data")) for word in words]
        found = [path for word in here for path in (sorted(map(str, world.glob(word))) if "/*/" in word else [word])]
        code, out, err = steelyard(*found)
        assert code == 0, err
        return out + err

    return type_words


@pytest.mark.parametrize("words", typed(*HARMLESS), ids=" ".join)
def test_a_command_of_the_pages_works(type_in: Callable[[tuple[str, ...]], str], words: tuple[str, ...]) -> None:
    assert type_in(words).strip()


def test_an_export_of_the_pages_is_imported_as_they_say(type_in: Callable[[tuple[str, ...]], str], world: Path) -> None:
    export, imported = (each for each in typed(*EXCHANGES) if each[0] == "import" or "lm-eval" in each)
    assert (export[0], imported[0]) == EXCHANGES
    type_in(export)
    shutil.copytree(world / "out", world / "old-runs")
    assert "gsm8k" in type_in(imported)
