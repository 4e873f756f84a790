"""What machines and engines do meanwhile: readings, timelines, progress."""
