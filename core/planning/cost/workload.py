"""The tokens that a benchmark will ask of a model, before its dataset is loaded. Pure, but for the catalogue's YAMLs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from core.benchmark.find import leaves_of
from core.catalogue.index import Leaf
from core.planning.cost.history import PastCell
from core.planning.cost.model import Tokens
from core.spec.parts import BenchmarkSpec, benchmark_label, lengths_of

# Docs of the split that is scored, for what people run most; from the data sets' own cards.
DOCS = {
    "arc_challenge": 1172,
    "arc_easy": 2376,
    "bbh": 6511,
    "boolq": 3270,
    "commonsense_qa": 1221,
    "drop": 9536,
    "gpqa_diamond_zeroshot": 198,
    "gsm8k": 1319,
    "gsm8k_cot": 1319,
    "hellaswag": 10042,
    "hendrycks_math": 5000,
    "humaneval": 164,
    "ifeval": 541,
    "lambada_openai": 5153,
    "logiqa": 651,
    "mbpp": 500,
    "mgsm_direct": 2750,
    "minerva_math": 5000,
    "minerva_math500": 500,
    "mmlu": 14042,
    "mmlu_pro": 12032,
    "nq_open": 3610,
    "openbookqa": 500,
    "piqa": 1838,
    "race": 1045,
    "ruler": 6500,  # of each length
    "sciq": 1000,
    "social_iqa": 1954,
    "squadv2": 11873,
    "triviaqa": 17944,
    "truthfulqa_mc1": 817,
    "truthfulqa_mc2": 817,
    "truthfulqa_gen": 817,
    "winogrande": 1267,
}
GUESSED_DOCS = 1000  # of a task that nothing is known of
DOC_TOKENS, SHOT_TOKENS = 150, 150
CHOICES = 4
ANSWER_TOKENS = 200  # at most what the benchmark allows
REASONING_TOKENS = 2500
SHARED = 0.8  # part of the few-shot examples that is read from the prefix cache
# Spread of tokens, in log space: where the store has the benchmark, by the same model and by others,
OWN, SEEN = 0.05, 0.25
SIZED, GUESSED = 0.6, 1.0  # and where it has not, with its size known and without


@dataclass(frozen=True)
class Workload:
    """The docs and tokens of one cell; ``basis`` names their source, ``spread`` is their standard deviation in log space."""

    benchmark: str
    docs: int
    tokens: Tokens
    basis: str
    spread: float


def workload(benchmark: BenchmarkSpec, model: str, past: Sequence[PastCell], *, reasons: bool = False) -> Workload:
    """Return the expected docs and tokens of one benchmark: by the same benchmark in the store, else by its size, else by a guess.

    ``model`` is the checkpoint's identity: its own answers tell most about the next. ``reasons`` says that it thinks first. Raises
    `core.errors.UserError` where the benchmark is not known.
    """
    label = benchmark_label(benchmark)
    leaves = leaves_of(benchmark.name)
    shots = _shots(benchmark, leaves)
    same = [cell for cell in past if cell.benchmark == label and cell.docs and cell.shots == shots]
    docs, sized = _docs(benchmark, leaves, same)
    if same:
        own = [cell for cell in same if cell.checkpoint == model]
        used = own or same
        prompt, cached, completion = (
            docs * median(getattr(cell, name) / cell.docs for cell in used)
            for name in ("prompt", "cached", "completion")
        )
        basis = f"{len(used)} stored cell{'s' if len(used) > 1 else ''}" + ("" if own else ", other models'")
        return Workload(label, docs, Tokens(max(0.0, prompt - cached), cached, completion), basis, OWN if own else SEEN)
    each = _guess(benchmark, leaves[0].config if leaves else {}, shots, reasons=reasons)
    tokens = Tokens(docs * each.computed, docs * each.cached, docs * each.decoded)
    return Workload(label, docs, tokens, f"{sized}, tokens guessed", SIZED if sized != "size guessed" else GUESSED)


def expected_tokens(loads: Sequence[Workload]) -> tuple[Tokens, float]:
    """Return the tokens of all workloads and the spread of the sum, errors of benchmarks taken as independent."""
    tokens = Tokens(*(sum(getattr(load.tokens, name) for load in loads) for name in ("computed", "cached", "decoded")))
    weights = [load.tokens.computed + 5 * load.tokens.decoded for load in loads]
    total = sum(weights) or 1.0
    return tokens, math.hypot(*(weight / total * load.spread for weight, load in zip(weights, loads, strict=True)))


def _shots(benchmark: BenchmarkSpec, leaves: Sequence[Leaf]) -> int:
    own = [leaf.config.get("num_fewshot") for leaf in leaves]
    if benchmark.num_fewshot is None:
        return max((shots or 0 for shots in own), default=0)
    # As in core.benchmark.benchmark: a task that says 0 itself stays at 0.
    return max((0 if shots == 0 else benchmark.num_fewshot for shots in own), default=0)


def _docs(benchmark: BenchmarkSpec, leaves: Sequence[Leaf], same: Sequence[PastCell]) -> tuple[int, str]:
    """Return the docs that will be asked, and how that is known."""
    alike = [cell.docs for cell in same if cell.limit == benchmark.limit]
    if alike:
        return alike[-1], "in the store"
    whole = [cell.docs for cell in same if cell.limit is None]
    size = whole[-1] if whole else _size(benchmark, leaves)
    most = benchmark.limit * max(1, len(leaves)) if benchmark.limit else None
    if size is None:
        return (most, "limit known") if most else (GUESSED_DOCS * max(1, len(leaves)), "size guessed")
    return (size, "size known") if most is None else (min(size, most), "size and limit known")


def _size(benchmark: BenchmarkSpec, leaves: Sequence[Leaf]) -> int | None:
    """Return docs without a limit: a well-known number, or lines of data files beside the YAMLs."""
    known = DOCS.get(benchmark_label(benchmark.model_copy(update={"label": ""})))
    if known is not None:
        return known * max(1, len(lengths_of(benchmark)))
    counts = [count for leaf in leaves if (count := _lines(leaf)) is not None]
    return sum(counts) if counts and len(counts) == len(leaves) else None


def _lines(leaf: Leaf) -> int | None:
    config: Mapping[str, Any] = leaf.config
    split = config.get("test_split") or config.get("validation_split")
    options = config.get("dataset_kwargs") or {}
    listed = options.get("files") or options.get("data_files")
    name = listed.get(split) if isinstance(listed, Mapping) else listed
    if leaf.path is None or not isinstance(name, str) or not name.endswith(".jsonl"):
        return None
    path = leaf.path.parent / name
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())


def _guess(benchmark: BenchmarkSpec, config: Mapping[str, Any], shots: int, *, reasons: bool) -> Tokens:
    """Return the tokens of one doc."""
    repeats = benchmark.repeats or config.get("repeats") or 1
    header, doc = shots * SHOT_TOKENS, round(fmean(lengths_of(benchmark) or [DOC_TOKENS]))
    if config.get("output_type") == "generate_until":
        allowed = benchmark.sampling.max_tokens or (config.get("generation_kwargs") or {}).get("max_gen_toks") or 256
        answer = min(int(allowed), REASONING_TOKENS if reasons else ANSWER_TOKENS)
        cached = header * SHARED + (repeats - 1) * (header + doc)
        return Tokens(header * (1 - SHARED) + doc, cached, repeats * answer)
    listed = config.get("doc_to_choice")
    choices = len(listed) if isinstance(listed, list) else CHOICES
    # The context of a doc's choices is computed once, the header of all docs once.
    return Tokens(header * (1 - SHARED) + doc, header * SHARED + (choices - 1) * (header + doc), 0)
