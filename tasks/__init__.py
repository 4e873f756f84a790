"""Prefect tasks: thin steps over core and engines."""
