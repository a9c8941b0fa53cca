"""Data sets and image files, shared by every paper folder."""
