"""Notebooks that run inside Apptainer containers."""

from __future__ import annotations

__version__ = "0.1.0"
