"""Instances that we started: start, stop, health, statistics, the ledger of them, and the janitor. Nobody else's are touched."""
