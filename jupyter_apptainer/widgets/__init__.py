"""The panel: what runs where, and buttons for what one would type. ipywidgets enters in `front`, at first use.

`front` is its face, which knows nothing of this host; `sections` is what it shows of the host, and what can be done with it.
"""

from .panel import panel

__all__ = ["panel"]
