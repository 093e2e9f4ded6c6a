"""How good a model is: metrics from scores, and running any model over images to get those scores."""
