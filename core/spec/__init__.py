"""The fields of a campaign's spec, and its suites."""
