"""What the plan says of docs that are longer than a model's window."""

from __future__ import annotations

from pathlib import Path

from core.campaign import load_spec
from core.planning.plan import make_plan
from tests.checkpoints import write_checkpoint


def test_docs_longer_than_the_window_are_said_and_refuse_nothing(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def rows(max_seq_lengths, **_):\n    pass\n")
    (tmp_path / "own.yaml").write_text(
        "task: own\ncustom_dataset: !function own.rows\ntest_split: test\ndoc_to_text: a\ndoc_to_target: b\n"
    )
    own = [
        {"name": str(tmp_path / "own.yaml"), "label": f"own_{length}", "metadata": {"max_seq_lengths": [length]}}
        for length in (512, 1024, 4096)
    ]
    spec = load_spec(
        {
            "name": "n",
            "models": [{"model": str(write_checkpoint(tmp_path / "m")), "name": "small", "max_model_len": 512}],
            "benchmarks": own,
            "fleet": {"gpus": 1, "gpu_memory_gb": 8, "device": "cpu"},
        }
    )
    assert make_plan(spec).warnings == (
        "model 'small' has a window of 512 tokens, and longer docs are asked of it by own_1024, own_4096: "
        "their scores say nothing about it",
    )
