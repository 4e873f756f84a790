"""Results in the forms of others: lm-evaluation-harness, MLflow, Weights & Biases."""
