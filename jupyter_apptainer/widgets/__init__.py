"""The panel: what runs where, and buttons for what one would type. ipywidgets enters in `view`, `page` and `fields`, at first use.

`model`, `sections` and `markup` know no widgets: they are what the panel is where there are none.
"""

from .panel import panel

__all__ = ["panel"]
