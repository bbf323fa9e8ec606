"""What a kernel runs in: whether a file is an image, and what is in it."""
