"""Which differences are real: statistics of scores and of pairs."""
