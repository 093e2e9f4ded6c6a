"""What the runtime costs beside the bare engine, and beside others. Each module is a benchmark: python -m."""
