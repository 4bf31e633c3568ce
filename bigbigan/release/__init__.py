"""Releases: what a finished run gives away, and how a model is loaded from anything that holds one."""
