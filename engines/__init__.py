"""Engines: the only room that knows vLLM and Ray."""
