"""Objects and files in a directory or on S3."""
