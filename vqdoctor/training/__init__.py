"""Training: retraining with remedies, and a monitor for a user's own loop. Not written yet."""
