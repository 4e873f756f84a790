"""What a checkpoint is: config, headers, files, weights."""
