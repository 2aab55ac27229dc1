"""Numbers about verdicts: intervals, and metrics over hierarchies. Arrays in, numbers out."""
