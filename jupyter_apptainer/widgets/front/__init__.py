"""The panel's face: what it shows and how it is clicked, whatever is behind it. Knows ipywidgets and nothing else of ours.

It is also sent to kernels in containers, whose Python may be older than ours: 3.9 or later. ipywidgets enters with `view`.
"""
