"""The results store: schemas, shards, commit records, leases and the spool."""
