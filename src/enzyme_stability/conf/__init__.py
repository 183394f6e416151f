"""Settings of training runs: values only, validated by enzyme_stability.config."""
