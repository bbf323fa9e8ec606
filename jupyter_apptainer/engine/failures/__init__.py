"""THE table: what the engine prints -> which error it is, and what to do.

Order counts: the first row that matches wins. Texts are those of Apptainer 1.2 to 1.4 and SingularityCE 4, lower case from
its Go part, capitals from its C part and from the programs that it starts. Numbers are issues of apptainer/apptainer.
"""

from __future__ import annotations

from . import host, images, making, programs, signing, storage
from .rule import Rule, Where

# Overlays before images: "failed to retrieve path" is said of both. Programs last: they fail because of all the others.
RULES: tuple[Rule, ...] = (*host.ROWS, *storage.ROWS, *images.ROWS, *signing.ROWS, *making.ROWS, *programs.ROWS)

__all__ = ["RULES", "Rule", "Where"]
