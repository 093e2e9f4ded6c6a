"""Labelled images: reading a folder or a listing, splitting it, and the cache of prepared pixels."""
