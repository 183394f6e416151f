"""Experiment tracking: curves, pictures and predictors of training runs, in files and on tracking servers."""

from enzyme_stability.tracking.sweep import write_sweep
from enzyme_stability.tracking.tracker import Tracker

__all__ = ["Tracker", "write_sweep"]
