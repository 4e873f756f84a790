"""The leaderboard: what is selected, read and written of it."""
