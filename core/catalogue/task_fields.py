"""Fields, types and registered names of lm-evaluation-harness's task format (0.4.13), for `core.catalogue.task_rules`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from core.catalogue.index import FunctionName

OUTPUT_TYPES = ("generate_until", "loglikelihood", "loglikelihood_rolling", "multiple_choice")
# Read by lm-eval's loader, beside the fields of its TaskConfig.
LOADER_FIELDS = ("include", "class", "group", "task_list")
TEXT, LIST, MAPPING, FUNCTION, TRUTH = "text", "a list", "a mapping", "!function module.name", "true or false"
COUNT, NUMBER = "a whole number", "a number"
Types = Mapping[str, tuple[str, ...]]
TASK_TYPES: Types = {
    "task": (TEXT,),
    "task_alias": (TEXT,),
    "tag": (TEXT, LIST),
    "custom_dataset": (FUNCTION,),
    "dataset_path": (TEXT,),
    "dataset_name": (TEXT,),
    "dataset_kwargs": (MAPPING,),
    "training_split": (TEXT,),
    "validation_split": (TEXT,),
    "test_split": (TEXT,),
    "fewshot_split": (TEXT,),
    "process_docs": (FUNCTION,),
    "doc_to_text": (TEXT, COUNT, FUNCTION),
    "doc_to_target": (TEXT, COUNT, LIST, FUNCTION),
    "doc_to_choice": (TEXT, LIST, MAPPING, FUNCTION),
    "doc_to_image": (TEXT, LIST, FUNCTION),
    "doc_to_audio": (TEXT, LIST, FUNCTION),
    "unsafe_code": (TRUTH,),
    "process_results": (FUNCTION,),
    "use_prompt": (TEXT,),
    "description": (TEXT,),
    "target_delimiter": (TEXT,),
    "fewshot_delimiter": (TEXT,),
    "fewshot_config": (MAPPING,),
    "num_fewshot": (COUNT,),
    "metric_list": (LIST,),
    "output_type": (TEXT,),
    "generation_kwargs": (MAPPING,),
    "repeats": (COUNT,),
    "filter_list": (LIST,),
    "should_decontaminate": (TRUTH,),
    "doc_to_decontamination_query": (TEXT, FUNCTION),
    "gen_prefix": (TEXT,),
    "metadata": (MAPPING,),
}
LEAST = {"num_fewshot": 0, "repeats": 1}
TEMPLATES = ("doc_to_text", "doc_to_target", "doc_to_choice", "description", "gen_prefix")
NEEDED = {
    "doc_to_text": "how a doc becomes a prompt",
    "doc_to_target": "what its answer is",
    "doc_to_choice": "what its choices are",
}
GENERATION_TYPES: Types = {
    "until": (TEXT, LIST),
    "do_sample": (TRUTH,),
    "temperature": (NUMBER, TEXT),  # lm-eval reads "0.0" as a number
    "top_p": (NUMBER,),
    "top_k": (COUNT,),
    **dict.fromkeys(("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens", "num_beams"), (COUNT,)),
}
FEWSHOT_TYPES: Types = {
    "sampler": (TEXT, FUNCTION),
    "split": (TEXT,),
    "process_docs": (FUNCTION,),
    "fewshot_indices": (LIST,),
    "samples": (LIST, FUNCTION),
    **{
        name: TASK_TYPES[name]
        for name in (
            "doc_to_text",
            "doc_to_choice",
            "doc_to_target",
            "gen_prefix",
            "fewshot_delimiter",
            "target_delimiter",
        )
    },
}
METRIC_TYPES: Types = {
    "metric": (TEXT, FUNCTION),
    "aggregation": (TEXT, FUNCTION),
    "higher_is_better": (TRUTH,),
    "hf_evaluate": (TRUTH,),
}
FILTER_TYPES: Types = {"name": (TEXT,), "filter": (LIST,)}
AGGREGATE_TYPES: Types = {"metric": (TEXT, FUNCTION), "filter_list": (TEXT, LIST), "aggregation": (TEXT, FUNCTION)}
EXAMPLES = {
    "metric_list": "{metric: acc, aggregation: mean, higher_is_better: true}",
    "filter_list": "{name: none, filter: [{function: take_first}]}",
    "aggregate_metric_list": "{metric: acc, weight_by_size: true}",
}
# What lm-eval looks for in Hugging Face's evaluate when its own registry has no such metric.
HF_METRICS = frozenset(
    re.findall(
        r"\w+",
        "accuracy bertscore bleu bleurt brier_score cer character charcut_mt chrf "
        "code_eval comet competition_math coval cuad exact_match f1 frugalscore glue google_bleu indic_glue "
        "mae mahalanobis mape mase matthews_correlation mauve mean_iou meteor mse nist_mt pearsonr perplexity "
        "poseval precision r_squared recall rl_reliability roc_auc rouge sacrebleu sari seqeval smape "
        "spearmanr squad squad_v2 super_glue ter trec_eval wer wiki_split xnli xtreme_s ",
    )
)


def is_kind(value: Any, kind: str) -> bool:
    """Say whether a value of a YAML is of a kind such as `TEXT` or `FUNCTION`."""
    if isinstance(value, FunctionName):
        return kind == FUNCTION
    if kind in (COUNT, NUMBER):
        return isinstance(value, int if kind == COUNT else int | float) and not isinstance(value, bool)
    plain: dict[str, type] = {TEXT: str, LIST: list, MAPPING: dict, TRUTH: bool}
    return kind in plain and isinstance(value, plain[kind])


@cache
def metrics() -> frozenset[str]:
    """Names of lm-eval's metrics."""
    from lm_eval.api import metrics as _registers  # noqa: F401
    from lm_eval.api.registry import metric_registry

    return frozenset(metric_registry.keys())


@cache
def aggregations() -> frozenset[str]:
    """Names of lm-eval's aggregations."""
    from lm_eval.api import metrics as _registers  # noqa: F401
    from lm_eval.api.registry import aggregation_registry

    return frozenset(aggregation_registry.keys())


@cache
def default_aggregations() -> frozenset[str]:
    """Names of the metrics that bring their aggregation."""
    from lm_eval.api import metrics as _registers  # noqa: F401
    from lm_eval.api.registry import metric_agg_registry

    return frozenset(metric_agg_registry.keys())


@cache
def filters() -> dict[str, tuple[str, ...] | None]:
    """Names of lm-eval's filters, and of the options each takes: None where it takes any."""
    from lm_eval import filters as _registers  # noqa: F401
    from lm_eval.api.registry import filter_registry

    found: dict[str, tuple[str, ...] | None] = {}
    for name in filter_registry:
        parameters = inspect.signature(filter_registry.get(name)).parameters.values()
        anything = any(each.kind is each.VAR_KEYWORD for each in parameters)
        found[name] = None if anything else tuple(each.name for each in parameters)
    return found


@cache
def samplers() -> frozenset[str]:
    """Names of lm-eval's few-shot samplers."""
    from lm_eval.api.samplers import SAMPLER_REGISTRY

    return frozenset(SAMPLER_REGISTRY)
