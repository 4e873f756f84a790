"""The scheduler, its simulator, and a bound that no schedule beats."""
