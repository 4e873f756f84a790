"""Prefect flows: what people trigger."""
