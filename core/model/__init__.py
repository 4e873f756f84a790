"""A model: its checkpoint, where it runs, and on how many devices."""
