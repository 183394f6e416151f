"""Reading, cleaning and splitting data."""
