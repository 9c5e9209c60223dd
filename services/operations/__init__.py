"""What operators ask of the running service besides accounts and keys."""
