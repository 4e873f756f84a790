"""Model-written code in a sandbox, its tests in another."""
