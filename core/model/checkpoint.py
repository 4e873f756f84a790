"""The facts of a checkpoint, read from its config by vLLM and from its safetensors headers, never from its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from core.errors import UserError, nearest
from core.model.config_facts import ConfigFacts
from core.model.config_reader import config_name, read_config
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


@dataclass(frozen=True)
class Checkpoint:
    """Facts of one checkpoint at one revision. Sizes in bytes, windows in tokens."""

    source: str  # as the user wrote it: hub id, local directory or s3:// URI
    revision: str  # commit hash of a hub repository, else "sha256:" and the start of ``identity``
    identity: str  # hex digest of everything in the files that changes outputs; part of every cell's fingerprint
    architecture: str  # architectures[0], as vLLM reads the config
    dtype: str  # type most weights are stored in: "bfloat16", "float16", "float32", "float8_e4m3fn", …
    quantization: str | None  # quant_method, e.g. "awq"; None where weights are plain
    parameters: int | None  # None where packing or a file format hides them
    weight_bytes: int  # bytes of the weights that vLLM holds once loaded, at the types they are stored in
    layers: int
    hidden_size: int
    attention_heads: int  # 0 where nothing attends, as in Mamba
    kv_heads: int
    head_dim: int
    kv_bytes_per_token: int  # of layers that keep all tokens, at the KV cache's type, one copy
    kv_replicated: bool  # latent attention (MLA): every tensor-parallel rank holds the whole KV cache
    context_window: int  # the largest that vLLM takes; its default where the config names none
    experts: int  # 0 where dense
    multimodal: bool  # takes images or sound, too
    has_chat_template: bool
    has_tokenizer: bool = True
    weight_files: tuple[str, ...] = ()  # those that vLLM loads, of which ``identity`` and sizes are
    listing: str = ""  # digest by which a fetch tells that it got the files of ``identity``
    any_window: bool = False  # the config names none, and any may be asked for
    kv_dtype: str = "auto"  # of the KV cache, by vLLM's name; "auto" is 16-bit unless the model computes in 32
    kv_sliding_bytes_per_token: int = 0  # of layers that keep the last tokens only
    kv_sliding_window: int = 0  # how many they keep
    kv_bytes_per_sequence: int = 0  # whatever its length: what decoders keep of an encoder's output
    state_bytes: int = 0  # of one sequence in recurrent layers

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

    ``arguments`` are of vLLM's engine, some of which choose files, or change what a config means. With ``trust_remote_code`` the
    checkpoint's own config class is run where it has one, in a process of its own (`core.model.config_reader`).
    Raises `core.errors.UserError` with one line that names the file and the mend.
    """
    files, asked = open_files(source, revision), arguments or {}
    check_folder(files)
    name = config_name(files)
    config = files.json(name) or {}
    if "auto_map" in config and not config.get("architectures") and not trust_remote_code:
        raise UserError(f"{source!r} brings its own model code: set trust_remote_code: true to run it")
    check_dtypes(config, f"{source!r}: {name}")
    weights = read_weights(files, config, asked)
    identity = read_identity(files, weights.files, trust_remote_code=trust_remote_code, arguments=asked)
    tokenizer = files.json("tokenizer_config.json") or {}
    return describe(
        read_config(files, asked, trust_remote_code=trust_remote_code),
        weights,
        source=source,
        config_file=name,
        revision=files.revision or f"sha256:{identity[:16]}",
        identity=identity,
        listing=listing_of(files, weights.files),
        has_chat_template=bool(tokenizer.get("chat_template")) or not TEMPLATE_FILES.isdisjoint(files.names),
        has_tokenizer=any(
            name in TOKENIZER_FILES or name.endswith(".tiktoken") or name.startswith("tokenizer.model.v")
            for name in files.names
        ),
    )


def describe(
    facts: ConfigFacts,
    weights: Weights,
    *,
    source: str,
    config_file: str = "config.json",
    revision: str = "",
    identity: str = "",
    listing: str = "",
    has_chat_template: bool = False,
    has_tokenizer: bool = True,
) -> Checkpoint:
    """Turn what vLLM reads from a config, and the weights' facts, into a `Checkpoint`. Pure.

    Raises `core.errors.UserError` where what placement needs is missing.
    """
    attends = facts.attention_heads or facts.state_bytes  # vLLM reads a missing number as 0
    for needed, value in (
        ("num_hidden_layers", facts.layers),
        ("hidden_size", facts.hidden_size),
        ("num_attention_heads", attends),
    ):
        if value < 1:
            raise UserError(f"{source!r}: {config_file} has no {needed}: placement needs it to do its arithmetic")
    dtype = weights.dtype or facts.dtype or "float32"
    wide = 2 if dtype == "float32" and facts.kv_dtype == "auto" else 1
    return Checkpoint(
        source=source,
        revision=revision,
        identity=identity,
        architecture=facts.architecture,
        dtype=dtype,
        quantization=facts.quantization,
        parameters=weights.parameters,
        weight_bytes=weights.bytes,
        layers=facts.layers,
        hidden_size=facts.hidden_size,
        attention_heads=facts.attention_heads,
        kv_heads=facts.kv_heads,
        head_dim=facts.head_dim,
        kv_bytes_per_token=wide * facts.kv_bytes,
        kv_replicated=facts.mla,
        context_window=facts.window,
        experts=facts.experts,
        multimodal=facts.multimodal,
        has_chat_template=has_chat_template,
        has_tokenizer=has_tokenizer,
        weight_files=weights.files,
        listing=listing,
        any_window=facts.any_window,
        kv_dtype=facts.kv_dtype,
        kv_sliding_bytes_per_token=wide * facts.sliding_bytes,
        kv_sliding_window=facts.sliding_window,
        kv_bytes_per_sequence=wide * facts.encoder_bytes,
        state_bytes=facts.state_bytes,
    )


def check_dtypes(config: Mapping[str, Any], name: str) -> None:
    """Raise `core.errors.UserError` for a type that torch does not have: vLLM would find out with a GPU held."""
    nested = [config[key] for key in config if key.endswith("_config") and isinstance(config[key], dict)]
    for part in (config, *nested):
        named = part.get("dtype") or part.get("torch_dtype")
        dtype = named.removeprefix("torch.") if isinstance(named, str) else None
        if dtype is not None and dtype not in TORCH_DTYPES:
            raise UserError(
                f"{name}: dtype = {dtype!r}: torch has no such type{nearest(dtype, TORCH_DTYPES)}; correct the file"
            )
