"""The facts of a checkpoint, read from its config and its safetensors headers, never from its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from core.errors import UserError, nearest
from core.model.files import open_files
from core.model.folder import check_folder
from core.model.identity import listing_of, read_identity
from core.model.weight_files import Weights, read_weights

DTYPE_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1}
TORCH_DTYPES = (*DTYPE_BYTES, "auto", "half", "float", "double", "int8", "uint8")
TEMPLATE_FILES = frozenset({"chat_template.jinja", "chat_template.json"})
# Vocabularies of Hugging Face's and Mistral's tokenizers.
TOKENIZER_FILES = frozenset(
    {
        "sentencepiece.bpe.model",
        "spiece.model",
        "tekken.json",
        "tokenizer.json",
        "tokenizer.model",
        "vocab.json",
        "vocab.txt",
    }
)
PROCESSOR_FILES = frozenset({"preprocessor_config.json", "processor_config.json"})


@dataclass(frozen=True)
class Checkpoint:
    """Facts of one checkpoint at one revision. Sizes in bytes, windows in tokens."""

    source: str  # as the user wrote it: hub id, local directory or s3:// URI
    revision: str  # commit hash of a hub repository, else "sha256:" and the start of ``identity``
    identity: str  # hex digest of everything in the files that changes outputs; part of every cell's fingerprint
    architecture: str  # config.json's architectures[0]
    dtype: str  # type most weights are stored in: "bfloat16", "float16", "float32", "float8_e4m3fn", …
    quantization: str | None  # quant_method, e.g. "awq"; None where weights are plain
    parameters: int | None  # None where packing or a file format hides them
    weight_bytes: int  # bytes of the weights that vLLM holds once loaded, at the types they are stored in
    layers: int
    hidden_size: int
    attention_heads: int
    kv_heads: int
    head_dim: int
    kv_bytes_per_token: int  # at the KV cache's type (16-bit unless the weights are float32), all layers, one copy
    kv_replicated: bool  # latent attention (MLA): every tensor-parallel rank holds the whole KV cache
    context_window: int
    experts: int  # 0 where dense
    multimodal: bool  # takes images or sound, too
    has_chat_template: bool
    has_tokenizer: bool = True
    weight_files: tuple[str, ...] = ()  # those that vLLM loads, of which ``identity`` and sizes are
    listing: str = ""  # digest by which a fetch tells that it got the files of ``identity``

    @property
    def place(self) -> Literal["s3", "hub", "directory"]:
        """The kind of place that ``source`` names."""
        if self.source.startswith("s3://"):
            return "s3"
        return "directory" if self.revision.startswith("sha256:") else "hub"


def read_checkpoint(
    source: str,
    revision: str | None = None,
    *,
    trust_remote_code: bool = False,
    arguments: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Read the facts of ``source`` (hub id, local directory or s3:// URI) from small files and weight headers alone.

    ``arguments`` are of vLLM's engine, some of which choose files. ``trust_remote_code`` allows an architecture whose numbers its
    own Python code would have to be asked for; nothing is run here.
    Raises `core.errors.UserError` with one line that names the file and the mend.
    """
    files = open_files(source, revision)
    check_folder(files)
    config = files.json("config.json")
    if config is None:
        raise UserError(f"{source!r} has no config.json: it is not a checkpoint that vLLM can load")
    if "auto_map" in config and not config.get("architectures") and not trust_remote_code:
        raise UserError(f"{source!r} brings its own model code: set trust_remote_code: true to run it")
    weights = read_weights(files, config, arguments or {})
    identity = read_identity(files, weights.files, trust_remote_code=trust_remote_code, arguments=arguments or {})
    tokenizer = files.json("tokenizer_config.json") or {}
    try:
        return describe(
            config,
            weights,
            source=source,
            revision=files.revision or f"sha256:{identity[:16]}",
            identity=identity,
            has_chat_template=bool(tokenizer.get("chat_template")) or not TEMPLATE_FILES.isdisjoint(files.names),
            listing=listing_of(files, weights.files),
            has_processor=not PROCESSOR_FILES.isdisjoint(files.names),
            has_tokenizer=any(
                name in TOKENIZER_FILES or name.endswith(".tiktoken") or name.startswith("tokenizer.model.v")
                for name in files.names
            ),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{source!r}: config.json is not as those of models are ({type(error).__name__}: {error}): fetch it again"
        ) from error


def describe(
    config: Mapping[str, Any],
    weights: Weights,
    *,
    source: str,
    revision: str = "",
    identity: str = "",
    listing: str = "",
    has_chat_template: bool = False,
    has_processor: bool = False,
    has_tokenizer: bool = True,
) -> Checkpoint:
    """Turn a config.json and the weights' facts into a `Checkpoint`. Pure.

    Raises `core.errors.UserError` where the config lacks what placement needs.
    """
    whole = config.get("thinker_config", config)  # an omni model's part that reads and answers
    text = {**whole, **_with_defaults(whole.get("text_config", whole.get("llm_config", {})))}
    name = f"{source!r}: config.json"
    layers = _number(text, name, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
    heads = _number(text, name, "num_attention_heads", "n_head", "n_heads")
    hidden = _number(text, name, "hidden_size", "n_embd", "d_model")
    kv_heads = _optional(text, "num_key_value_heads", "num_kv_heads", "n_head_kv") or (
        1 if text.get("multi_query") else heads
    )
    head_dim = _optional(text, "head_dim", "kv_channels") or hidden // heads
    quantization = (config.get("quantization_config") or text.get("quantization_config") or {}).get("quant_method")
    named = _stored_dtype(text, config)
    _check_dtype(named, name)
    dtype = weights.dtype or named
    latent = text.get("kv_lora_rank")
    per_layer = latent + text.get("qk_rope_head_dim", 0) if latent else 2 * kv_heads * head_dim
    architectures = config.get("architectures") or ["unknown"]
    return Checkpoint(
        source=source,
        revision=revision,
        identity=identity,
        architecture=architectures[0],
        dtype=dtype,
        quantization=quantization,
        parameters=weights.parameters,
        weight_bytes=weights.bytes,
        layers=layers,
        hidden_size=hidden,
        attention_heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        kv_bytes_per_token=_attention_layers(text, layers) * per_layer * (4 if dtype == "float32" else 2),
        kv_replicated=bool(latent),
        context_window=_context_window(text),
        experts=_optional(text, "num_local_experts", "n_routed_experts", "num_experts") or 0,
        multimodal=has_processor or "vision_config" in whole or "audio_config" in whole,
        has_chat_template=has_chat_template,
        has_tokenizer=has_tokenizer,
        weight_files=weights.files,
        listing=listing,
    )


def _with_defaults(nested: Mapping[str, Any]) -> Mapping[str, Any]:
    """Add the defaults that a nested config leaves out, as that of llava-1.5-7b does."""
    kind = nested.get("model_type")
    if kind is None or "num_hidden_layers" in nested:
        return nested
    from transformers import CONFIG_MAPPING

    return {**CONFIG_MAPPING[kind]().to_dict(), **nested} if kind in CONFIG_MAPPING else nested


def _attention_layers(text: Mapping[str, Any], layers: int) -> int:
    """Count layers that keep keys and values; linear-attention and state-space layers of hybrid models do not."""
    kinds = text.get("layer_types") or text.get("layers_block_type")
    if not kinds:
        return layers
    return sum("attention" in kind and "linear" not in kind for kind in kinds)


def _context_window(text: Mapping[str, Any]) -> int:
    window = _optional(text, "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length")
    if not window:
        return 2048  # what vLLM assumes where a config says nothing
    scaling = text.get("rope_scaling") or text.get("rope_parameters") or {}
    kind = scaling.get("rope_type", scaling.get("type"))
    # These extend the trained window by a factor; others ("llama3", "longrope") state the extended window themselves.
    if kind in ("yarn", "linear", "dynamic") and "factor" in scaling:
        if kind == "yarn" and "original_max_position_embeddings" in scaling:
            return max(window, int(scaling["original_max_position_embeddings"] * scaling["factor"]))
        return int(window * scaling["factor"])
    return window


def _stored_dtype(text: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    named = text.get("dtype") or text.get("torch_dtype") or config.get("dtype") or config.get("torch_dtype")
    return str(named or "float32").removeprefix("torch.")


def _check_dtype(dtype: str, name: str) -> None:
    """Raise `core.errors.UserError` for a type that torch does not have: vLLM would find out with a GPU held."""
    if dtype not in TORCH_DTYPES:
        raise UserError(
            f"{name}: dtype = {dtype!r}: torch has no such type{nearest(dtype, TORCH_DTYPES)}; correct the file"
        )


def _optional(config: Mapping[str, Any], *keys: str) -> int | None:
    for key in keys:
        if isinstance(config.get(key), int):
            return int(config[key])
    return None


def _number(config: Mapping[str, Any], name: str, *keys: str) -> int:
    value = _optional(config, *keys)
    if not value or value < 0:
        raise UserError(f"{name} has no {keys[0]}: placement needs it to do its arithmetic")
    return value
