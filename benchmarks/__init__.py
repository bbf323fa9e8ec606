"""What the README's figures come from: a kernel in a container against a local one of the same versions, in one run.

    python -m benchmarks --help

Nothing here is part of the package, and no test looks at a duration.
"""
