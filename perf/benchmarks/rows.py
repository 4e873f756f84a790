"""Rows of the benchmark files in shared/data, for the tasks of this folder."""

from tests.core.tasks.rows import bbh, gsm8k, mmlu

__all__ = ["bbh", "gsm8k", "mmlu"]
