"""From a trained run to a bundle of verified artifacts."""
