"""From responses to samples and scores."""
