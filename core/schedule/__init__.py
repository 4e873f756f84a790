"""Who gets GPUs when: the scheduler, its simulator and its rivals."""
