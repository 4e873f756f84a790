"""The campaign of smollm2.yaml in Python: ``python examples/from_python.py``."""

from steelyard import campaign

result = campaign(
    {
        "name": "from-python",
        "models": [".demo/smollm2-135m-instruct"],
        "benchmarks": [{"name": "steelyard_facts", "limit": 50}],
        "results": "results",
    }
)
print(result.leaderboard[["model", "benchmark", "score", "stderr", "docs"]])
