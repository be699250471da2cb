"""Training: states, pure steps, drivers, checkpoints, records and the loop."""
