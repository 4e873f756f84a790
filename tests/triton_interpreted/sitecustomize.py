"""Has vLLM run its second model runner without a GPU: put before all others on the PYTHONPATH of an engine's process.

That runner's kernels are Triton's, and vLLM takes it on a processor only where Triton has a backend for one, which no wheel has.
Triton's interpreter runs the same kernels in NumPy instead: the runner is vLLM's own, only slow.
"""

import os
import types

os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported: its own functions are kernels too

from triton.backends import backends  # type: ignore[import-untyped]

backends["cpu"] = types.SimpleNamespace(driver=None, compiler=None)
