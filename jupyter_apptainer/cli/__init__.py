"""The command line: `jupyter apptainer …`. Doors only: they read words and show results, and decide nothing."""
