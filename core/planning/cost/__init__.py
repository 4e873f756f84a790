"""Seconds, GPU-hours and money: the cost model, what a campaign will take, and what it took."""
