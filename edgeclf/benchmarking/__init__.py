"""Measuring many artifacts: sweeps, comparisons, the choice between them and their report; and on boards over ssh."""
