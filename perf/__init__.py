"""Measurements; each prints ratios or times of one run on this machine. None passes or fails."""
