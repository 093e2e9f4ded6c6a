"""Training: a configuration and labelled images become a run."""
