"""What the contracts in pyproject.toml cannot say: heavy libraries are not loaded before they are needed."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
HEAVY = ["prefect", "vllm", "ray", "torch"]


def test_importing_core_imports_nothing_heavy() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted((ROOT / "core").rglob("*.py"))
        if path.name != "__init__.py"
    ]
    modules = [name for name in modules if not name.startswith("core.benchmarks.")]
    code = f"import importlib, json, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
    code += f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_a_campaign_process_does_not_load_vllm_or_torch() -> None:
    code = "import flows.campaign, sys; print([name for name in ('vllm', 'torch') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
