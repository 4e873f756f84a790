"""An engine in a child process, from both sides, and the lightweight engine."""
