"""One module for each page of the panel: reads the rooms, and returns a `Section`. No widgets, and nothing is changed."""
