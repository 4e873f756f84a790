"""vLLM's side, inside an engine's process: requests in, responses out."""
