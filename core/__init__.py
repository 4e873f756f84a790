"""Shared core: plain functions and frozen dataclasses. Imports no Prefect, vLLM, Ray or torch."""
