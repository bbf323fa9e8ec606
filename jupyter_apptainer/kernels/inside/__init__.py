"""What runs inside the container, or is bound into it: copied there file by file, and run without this package by the image's own Python."""
