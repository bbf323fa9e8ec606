"""Layered builds: what a recipe has in common with one that was built before is not run again."""
