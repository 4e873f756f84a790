"""Docs that a task's own code makes for a tokenizer: the same in every process, made once for each tokenizer, and faults named."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from core.benchmark.benchmark import load_benchmark
from core.benchmark.datasets.made import Tokenizer, tokenizer_digest
from core.benchmark.datasets.making import splits_of
from core.benchmark.needed import fetch
from core.campaign import BenchmarkSpec, DatasetsSpec
from core.errors import UserError

YAML = """
task: {name}
custom_dataset: !function words.make
output_type: generate_until
test_split: test
doc_to_text: "{{{{text}}}}"
doc_to_target: "{{{{length}}}}"
metadata: {{version: 1.0}}
"""
# As RULER's code: a tokenizer by name, random numbers of the interpreter, state in the module, and prints.
CODE = """
import random
from pathlib import Path

import numpy as np
from datasets import Dataset
from tokenizers import Tokenizer

RNG = random.Random(42)
CALLS = Path(__file__).with_name("calls")

def make(**kwargs):
    tokenizer = Tokenizer.from_file(kwargs["tokenizer"] + "/tokenizer.json")
    CALLS.write_text(CALLS.read_text() + "." if CALLS.exists() else ".")
    print("making", flush=True)
    rows = []
    for most in kwargs.pop("max_seq_lengths", [8]):
        for _ in range(3):
            words = random.choices("abc", k=most) + [str(RNG.random()), str(np.random.randint(99))]
            rows.append({"text": " ".join(words), "length": len(tokenizer.encode(" ".join(words)))})
    return {"test": Dataset.from_list(rows)}
"""
GROUP = "group: both\ntask: [one, two]\naggregate_metric_list: [{metric: exact_match, weight_by_size: true}]\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEELYARD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A folder of two tasks with one maker, and their group."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "words.py").write_text(CODE)
    for name in ("one", "two"):
        (folder / f"{name}.yaml").write_text(YAML.format(name=name))
    with (folder / "two.yaml").open("a") as file:
        file.write("dataset_kwargs: {max_seq_lengths: [8, 9]}\n")
    (folder / "both.yaml").write_text(GROUP)
    return folder


def words(folder: Path, vocabulary: str) -> Tokenizer:
    """A tokenizer of a few words; every other one is cut into letters or unknown."""
    from tokenizers import Tokenizer as Words
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    made = Words(WordLevel({"?": 0, **{word: 1 + at for at, word in enumerate(vocabulary.split())}}, unk_token="?"))
    made.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token="?").save_pretrained(folder)
    return Tokenizer(str(folder))


def prompts(name: Path, tokenizer: Tokenizer | None, seed: int = 1, **fields: object) -> dict[str, list[str]]:
    benchmark = load_benchmark(
        BenchmarkSpec.model_validate({"name": str(name), **fields}), chat=None, seed=seed, tokenizer=tokenizer
    )
    found: dict[str, list[str]] = {}
    for request in benchmark.requests():
        found.setdefault(request.id.split("/")[0], []).append(request.prompt)  # type: ignore[union-attr]
    return found


def calls(tasks: Path) -> int:
    return len((tasks / "calls").read_text())


def test_docs_are_the_same_alone_and_in_a_group_and_made_once_for_a_tokenizer(tasks: Path, tmp_path: Path) -> None:
    first, same = words(tmp_path / "first", "a b c"), words(tmp_path / "again", "a b c")
    together = prompts(tasks / "both.yaml", first)
    assert together["two"][:3] == together["one"]
    assert calls(tasks) == 2
    assert prompts(tasks / "both.yaml", same) == together
    assert calls(tasks) == 2
    shutil.rmtree(tmp_path / "cache")
    assert prompts(tasks / "two.yaml", same)["two"] == together["two"]
    assert calls(tasks) == 3


def test_seed_and_arguments_make_other_docs(tasks: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tokenizer = words(tmp_path / "t", "a b c")
    longer = prompts(tasks / "one.yaml", tokenizer, metadata={"max_seq_lengths": [8, 16]})["one"]
    assert [len(each.split()) for each in longer] == [10] * 3 + [18] * 3
    assert prompts(tasks / "one.yaml", tokenizer, seed=2)["one"] != longer[:3]
    assert "making" not in capfd.readouterr().out


def test_a_fault_of_the_code_is_one_line_with_task_function_and_arguments(tasks: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        prompts(tasks / "one.yaml", words(tmp_path / "t", "a"), metadata={"max_seq_lengths": 8})
    assert str(caught.value).endswith(
        "docs of 'one' cannot be made by words.make with metadata max_seq_lengths = 8: "
        "TypeError: 'int' object is not iterable"
    )
    with pytest.raises(UserError, match="'one' makes its docs for a model's tokenizer, and no model is given"):
        prompts(tasks / "one.yaml", None)


def test_what_it_returns_is_a_mapping_of_splits() -> None:
    for wrong in ([{"text": "a"}], {"test": [{"text": "a"}]}):
        with pytest.raises(UserError, match="return a mapping of splits to datasets.Dataset"):
            splits_of(wrong)


def test_the_end_of_its_process_is_told(tasks: Path, tmp_path: Path) -> None:
    (tasks / "words.py").write_text(CODE.replace("    rows = []", "    import os; os._exit(9)\n    rows = []"))
    with pytest.raises(UserError, match="its process ended: making"):
        prompts(tasks / "one.yaml", words(tmp_path / "t", "a"))


def test_a_tokenizer_with_code_of_its_own_is_loaded_only_where_the_model_s_entry_allows_it(
    tasks: Path, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    tokenizer = words(tmp_path / "t", "a b c")
    folder = Path(tokenizer.source)
    (folder / "mine.py").write_text(
        f"from pathlib import Path\nfrom transformers import PreTrainedTokenizerFast\nPath({str(ran)!r}).touch()\n"
        "class Mine(PreTrainedTokenizerFast):\n    pass\n"
    )
    config = folder / "tokenizer_config.json"
    own = {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": [None, "mine.Mine"]}}
    config.write_text(json.dumps({**json.loads(config.read_text()), **own}))
    code = f"__import__('transformers').AutoTokenizer.from_pretrained({tokenizer.source!r}, trust_remote_code=True)"
    (tasks / "words.py").write_text(CODE.replace('print("making", flush=True)', code))
    plain = words(tmp_path / "plain", "a")
    prompts(tasks / "one.yaml", replace(plain, trust_remote_code=True))
    assert ran.exists()
    ran.unlink()
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(UserError, match="contains custom code which must be executed"):
        prompts(tasks / "one.yaml", plain)
    assert not ran.exists()


def test_what_docs_are_made_from_is_fetched_without_a_model(tasks: Path) -> None:
    failed = fetch([BenchmarkSpec(name=str(tasks / "both.yaml"))], DatasetsSpec())
    assert failed == []
    assert calls(tasks) == 2


def test_a_chat_template_makes_no_other_tokenizer(tmp_path: Path) -> None:
    plain, chatty = words(tmp_path / "plain", "a b"), words(tmp_path / "chatty", "a b")
    (tmp_path / "chatty" / "chat_template.jinja").write_text("{{ messages }}")
    assert tokenizer_digest(plain.source, False) == tokenizer_digest(chatty.source, False)
    with pytest.raises(UserError, match="the tokenizer '.*gone' cannot be loaded"):
        tokenizer_digest(str(tmp_path / "gone"), False)
