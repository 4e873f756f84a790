"""``make demo``: one real checkpoint on both engines, three kinds of benchmark, results in a real S3.

``python -m deployments.demo`` runs the campaign, ``… rows`` reads its rows back with pandas, ``… serve`` keeps the S3 server up for
other tools. Everything lives under ``.demo/``; nothing runs on after it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from core.errors import UserError
from deployments.console import complain, configure, say

DEMO = Path(".demo")
RESULTS = "s3://steelyard/demo"
BENCHMARKS = [
    {"name": "steelyard_facts"},
    {"name": "steelyard_arithmetic", "limit": 100},
    {"name": "steelyard_prose"},
]


def quick_dtypes() -> tuple[str, ...]:
    """Return the types that this machine computes in at its usual speed; bfloat16 takes a processor instructions of its own.

    Without them the demo's bfloat16 models take 27 minutes instead of two (issue 16).
    """
    import torch

    capabilities = torch.cpu.get_capabilities()
    if torch.cuda.is_available() or any(has for name, has in capabilities.items() if name.endswith("bf16")):
        return ("float32", "bfloat16")
    return ("float32",)


def write_spec(checkpoint: Path, padded: Path, dtypes: Sequence[str]) -> Path:
    """Write the demo's campaign: one checkpoint in each of ``dtypes`` on both engines."""
    models = [
        {
            "model": str(source),
            "name": f"{dtype}-{engine}",
            "dtype": dtype,
            "engine": engine,
            "max_model_len": 2048,
            **degree,
        }
        for dtype in dtypes
        for engine, source, degree in (("lightweight", checkpoint, {}), ("distributed", padded, {"tensor_parallel": 2}))
    ]
    spec = {
        "name": "demo",
        "models": models,
        "benchmarks": BENCHMARKS,
        "fleet": {"nodes": 1, "gpus": 2, "gpu_memory_gb": 5},
        "policy": {"service_idle_seconds": 0},
        "results": RESULTS,
    }
    path = DEMO / "campaign.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


@contextmanager
def storage() -> Iterator[None]:
    """Run the demo's S3 server, with the standard AWS variables set to reach it."""
    from deployments.local_s3 import local_s3

    with local_s3(DEMO / "s3") as server:
        os.environ.update(server.env)
        server.create_bucket("steelyard")
        yield


def run() -> int:
    """Run the campaign and compare the engines. Returns the exit code."""
    started = time.monotonic()
    say("Steelyard demo: SmolLM2-135M-Instruct on both engines, results in a local S3 server")
    from deployments.demo_model import make_smollm2, pad_heads

    checkpoint = make_smollm2(DEMO)
    padded = pad_heads(checkpoint, DEMO / "smollm2-135m-padded")
    dtypes = quick_dtypes()
    if "bfloat16" not in dtypes:
        say("bfloat16 is left out: this processor has no instructions for it")
    spec_path = write_spec(checkpoint.resolve(), padded.resolve(), dtypes)
    say(f"Campaign: {spec_path}")
    with storage():
        from core.campaign import load_spec
        from core.compare.flips import agreement
        from core.results import open_store
        from deployments.launch import run_campaign

        code = run_campaign(load_spec(spec_path))
        samples = open_store(RESULTS).samples()
        for pair in [(f"{dtype}-lightweight", f"{dtype}-distributed") for dtype in dtypes]:
            for row in agreement(samples, *pair):
                say(
                    f"{pair[0]} and {pair[1]} on {row.benchmark}: {row.same_answers:.1%} of {row.docs} answers alike, "
                    f"|Δ loglikelihood| {row.logprob_p99:.2g} at the 99th percentile, {row.logprob_max:.2g} at most"
                )
    say(f"Done in {time.monotonic() - started:.0f} s. Read the rows with pandas: make demo-rows")
    return code


def rows() -> int:
    """Read the samples with pandas, straight from S3."""
    import pandas as pd

    if not (DEMO / "s3").is_dir():
        raise UserError("no demo results here yet: run make demo first")
    with storage():
        frame = pd.read_parquet(f"{RESULTS}/samples")
        say(frame[["benchmark", "model", "doc_id", "prompt", "target", "value"]])
        say(frame.groupby(["benchmark", "model"], observed=True)["value"].agg(["mean", "count"]))
    return 0


def serve() -> int:
    """Keep the S3 server up until Ctrl-C, and print how to reach it."""
    with storage():
        for key in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            say(f"export {key}={os.environ[key]}")
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    return 0


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m deployments.demo", description=__doc__)
    parser.add_argument("step", nargs="?", choices=["run", "rows", "serve"], default="run")
    step = parser.parse_args().step
    signal.signal(signal.SIGTERM, lambda signum, _frame: sys.exit(128 + signum))
    os.environ.setdefault("TQDM_DISABLE", "1")  # one converter draws a bar whatever transformers is told
    configure()
    DEMO.mkdir(exist_ok=True)
    try:
        sys.exit({"run": run, "rows": rows, "serve": serve}[step]())
    except UserError as error:
        complain(error)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
