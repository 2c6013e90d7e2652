"""Runs: what makes a run durable? Declarations, steps, hooks and the errors of a run."""
