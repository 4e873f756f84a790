"""Everything decided before or between runs: plans, costs, schedules, the canary, and steps after failures."""
