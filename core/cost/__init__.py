"""What campaigns take and took: seconds, GPU-hours, money."""
