"""One model on its devices."""
