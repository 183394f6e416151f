"""From sequences to numbers: what a head learns from."""
