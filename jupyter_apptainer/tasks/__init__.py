"""Long work with progress, a log and an end: it runs in a process of its own, and outlives whoever watches it."""
