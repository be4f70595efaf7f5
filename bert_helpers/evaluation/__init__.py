"""What is done with predictions: calibration, comparison, figures."""
