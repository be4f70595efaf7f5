"""Evaluation of predictions: calibration, comparison, figures."""
