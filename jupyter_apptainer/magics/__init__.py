"""`%apptainer` and `%%apptainer`: the engine's whole command line, and words of ours, in a cell.

`extension` is what IPython sees; `host` carries a line out; `engine_words`, `services`, `cell_build` and `own_words` know the
commands. IPython is imported in `extension` and `completion` only, and is there wherever somebody types %load_ext.
"""
