"""The quickstart: the whole road on real pictures of solar cells."""
