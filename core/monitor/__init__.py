"""Monitoring of machines and engines: readings, timelines, progress."""
