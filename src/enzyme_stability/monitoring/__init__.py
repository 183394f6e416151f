"""What was predicted, what came back, and whether the two still fit: prediction log, drift, feedback."""
