"""This machine: the slots of its devices, the queue for them, this user's folder."""
