"""Compares cdrvault with other tools that do a part of its work."""
