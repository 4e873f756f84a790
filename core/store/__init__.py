"""The results store: objects, shards, commit records, leases and upkeep."""
