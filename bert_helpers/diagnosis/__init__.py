"""What is wrong with a run: checks, findings and fixes."""
