"""Bundled benchmarks: lm-evaluation-harness task YAMLs with their data, for machines that reach no hub."""
