"""From a pasted command or a batch script to a kernel's configuration, with every mistake that was found on the way."""
