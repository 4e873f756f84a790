"""Other tools' files and services."""
