"""Melting temperature of enzymes from sequence, with calibrated intervals and nothing to download."""

__version__ = "0.1.0"
