"""From what a person has to what the engine builds: recipes of several languages, checked, as definition files.

Nothing here starts the engine; `images.build` does.
"""
