"""A run of lm-evaluation-harness itself, with its own dummy model and file writer: ``python -m tests.core.lm_eval_run FOLDER``."""

import random
import sys
from pathlib import Path

import lm_eval
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager

BENCHMARKS = Path(__file__).parents[2] / "core" / "benchmarks"
TASKS = ["steelyard_arithmetic", "steelyard_facts", "steelyard_prose"]
GROUP = """
group: both
task: [steelyard_facts, steelyard_letters]
aggregate_metric_list: [{metric: acc, aggregation: mean, weight_by_size: true}]
metadata: {version: 1.0}
"""


def main(folder: Path) -> None:
    """Evaluate tasks on their own, then a group of them, and write what the harness writes."""
    random.seed(1)
    (folder / "group").mkdir(parents=True)
    (folder / "group" / "both.yaml").write_text(GROUP)
    manager = TaskManager(include_path=[str(BENCHMARKS), str(folder / "group")], include_defaults=False)
    for name, tasks in (("single", TASKS), ("grouped", ["both"])):
        tracker = EvaluationTracker(output_path=str(folder / name))
        results = lm_eval.simple_evaluate(
            model="dummy",
            model_args=f"pretrained=org/{name}",
            tasks=tasks,
            task_manager=manager,
            limit=8,
            bootstrap_iters=100,
            evaluation_tracker=tracker,
        )
        samples = results.pop("samples")
        tracker.save_results_aggregated(results=results, samples=samples)
        for task, own in samples.items():
            tracker.save_results_samples(task, own)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
