"""How many calibration images a run needs, which ones, and what speaks against those that it has."""
