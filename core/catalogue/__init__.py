"""Benchmarks by name, and task YAMLs held to lm-evaluation-harness's format."""
