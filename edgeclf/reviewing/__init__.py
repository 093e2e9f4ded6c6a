"""A person sorts images into classes, on a page of this machine."""
