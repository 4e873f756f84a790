"""What vLLM holds of a checkpoint's tensors, and how many parameters they are. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any, TypeVar

from core.model.headers import Tensor

Key = TypeVar("Key")

# safetensors' names for element types; what is missing here is packed or integer and says nothing about the compute type.
SAFETENSORS_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "BF16": "bfloat16",
    "F16": "float16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}
LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
HEAD = ("lm_head.weight",)
EMBEDDING = ("embed_tokens.weight", "word_embeddings.weight", "wte.weight", "embed_in.weight", "tok_embeddings.weight")
# Of quantized weights: factors, offsets, orders and tables, which are no parameters of the model, as AutoAWQ, GPTQModel,
# compressed-tensors, ModelOpt, gpt-oss (MXFP4), DeepSeek (blocks of FP8), Mistral and bitsandbytes name them.
FACTORS = re.compile(
    r"(scales?|scale_\w+|scale_inv|_scale|zeros|zero_points?|zp|g_idx|_shape|SCB|absmax|quant_map|qscale_\w+|perm)$"
    r"|\.(quant_state|weight\.(absmax|quant_map|nested_\w+|quant_state))(\.|$)"
)
FOUR_BIT = frozenset(
    {"mxfp4", "nvfp4", "modelopt", "modelopt_fp4", "modelopt_mixed", "compressed-tensors", "bitsandbytes"}
)
WHOLE_BYTES = frozenset({"fp8", "fbgemm_fp8", "finegrained_fp8", "deepseek_v4_fp8"})
IN_WORDS = frozenset({"awq", "awq_marlin", "gptq", "gptq_marlin", "auto-round", "compressed-tensors"})
PARTS = ("text_config", "llm_config", "thinker_config")


def held(name: str, config: Mapping[str, Any], arguments: Mapping[str, Any]) -> bool:
    """Whether vLLM keeps a tensor: layers that foretell further tokens (MTP) only where it speculates by them."""
    if name.endswith("rotary_emb.inv_freq"):  # computed anew
        return False
    if arguments.get("speculative_config"):
        return True
    if name.startswith(("mtp.", "model.mtp")):
        return False
    layers, more = _value(config, "num_hidden_layers"), _value(config, "num_nextn_predict_layers")
    if not (isinstance(layers, int) and isinstance(more, int)) or (found := LAYER.search(name)) is None:
        return True
    return not layers <= int(found[1]) < layers + more


def without_copy(
    tensors: Mapping[Key, Tensor],
    name_of: Callable[[Key], str],
    same: Callable[[Key, Key], bool],
    config: Mapping[str, Any],
) -> dict[Key, Tensor]:
    """Leave out an output head that is a copy of the embedding it is tied to: vLLM holds the two once.

    ``same`` says whether two tensors have the same content. Where they differ, vLLM keeps both, whatever the config says.
    """
    heads = [key for key in tensors if name_of(key).endswith(HEAD)]
    embeddings = [key for key in tensors if name_of(key).endswith(EMBEDDING)]
    if len(heads) != 1 or len(embeddings) != 1 or _value(config, "tie_word_embeddings") is not True:
        return dict(tensors)
    head, embedding = tensors[heads[0]], tensors[embeddings[0]]
    if (head.dtype, head.elements) != (embedding.dtype, embedding.elements) or not same(heads[0], embeddings[0]):
        return dict(tensors)
    return {key: tensor for key, tensor in tensors.items() if key != heads[0]}


def parameters_in(tensors: Iterable[tuple[str, Tensor]], config: Mapping[str, Any]) -> int | None:
    """Count the model's parameters, packed ones each, factors of a quantization not. None for a packing not known here."""
    quantization = quantization_of(config)
    if quantization is None:
        return sum(tensor.elements for _, tensor in tensors)
    counts = [_unpacked(tensor, quantization) for name, tensor in tensors if not FACTORS.search(name)]
    known = [count for count in counts if count is not None]
    return round(sum(known)) if len(known) == len(counts) else None


def _unpacked(tensor: Tensor, quantization: Mapping[str, Any]) -> Fraction | None:
    """Return the parameters in one tensor; 4-bit ones share bytes, or, as those of other widths, 32-bit words."""
    method = str(quantization.get("quant_method", "")).lower()
    if method not in FOUR_BIT | WHOLE_BYTES | IN_WORDS:
        return None
    if tensor.dtype == "U8" and method in FOUR_BIT:
        return Fraction(2 * tensor.elements)
    if tensor.dtype == "I32" and method in IN_WORDS:
        bits = _bits(quantization)
        return None if bits is None else Fraction(32 * tensor.elements, bits)
    return Fraction(tensor.elements)


def _bits(quantization: Mapping[str, Any]) -> int | None:
    groups = quantization.get("config_groups")
    found = {quantization.get("bits"), quantization.get("w_bit")}
    if isinstance(groups, Mapping):
        found |= {
            (group.get("weights") or {}).get("num_bits") for group in groups.values() if isinstance(group, Mapping)
        }
    widths = {bits for bits in found if isinstance(bits, int) and bits > 0}
    return widths.pop() if len(widths) == 1 else None


def stored_dtype(tensors: Iterable[tuple[str, Tensor]], config: Mapping[str, Any]) -> str | None:
    """Return torch's name of the floating-point type that most elements have, factors of a quantization aside."""
    elements: Counter[str] = Counter()
    quantized = quantization_of(config) is not None
    for name, tensor in tensors:
        if tensor.dtype in SAFETENSORS_DTYPES and not (quantized and name.endswith("scale")):
            elements[SAFETENSORS_DTYPES[tensor.dtype]] += tensor.elements
    return elements.most_common(1)[0][0] if elements else None


def quantization_of(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return how the weights are quantized, by config.json, a nested config of it or Mistral's params.json; None where plain."""
    for name in ("quantization_config", "compression_config"):
        if isinstance(found := _value(config, name), Mapping):
            return found
    native = config.get("quantization")  # of params.json
    return {"quant_method": "fp8"} if isinstance(native, Mapping) and "qformat_weight" in native else None


def _value(config: Mapping[str, Any], name: str) -> Any:
    nested = [config.get(part) for part in PARTS]
    return next(
        (each[name] for each in (config, *nested) if isinstance(each, Mapping) and each.get(name) is not None), None
    )
