"""Overlays: the writable layers of an image. Who holds one."""
