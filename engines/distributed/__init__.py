"""Distributed engine: a Ray cluster and a tensor-parallel vLLM service that outlives a campaign."""
