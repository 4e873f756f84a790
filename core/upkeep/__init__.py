"""Upkeep of a results store: what is in it, what is computed again, what nobody needs."""
