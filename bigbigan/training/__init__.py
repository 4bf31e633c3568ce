"""Training: the two updates, their schedule, the averages, the checkpoints, and what guards a run."""
