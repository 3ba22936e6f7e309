"""Getting a user's model to run: task, loading, device, and leaving no mark on it. This room needs torch."""
