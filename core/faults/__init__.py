"""What is done about engines that fail."""
