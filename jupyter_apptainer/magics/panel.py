"""`%apptainer panel`: the one word of ours that is no command line. Another door opens it, and is known here by its name alone."""

from __future__ import annotations

WORD = "panel"
HELP = "kernels, images, overlays, instances, GPUs and tasks, with buttons for what one would type"


def open_panel() -> object:
    """Return the panel, to be shown as the cell's result."""
    import jupyter_apptainer

    return jupyter_apptainer.panel()
