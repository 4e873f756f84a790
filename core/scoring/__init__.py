"""Scoring: from responses to samples and scores."""
