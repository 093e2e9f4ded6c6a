"""Measuring many artifacts on the host: sweeps, comparisons, the choice between them, and their report."""
