"""Long work gives way: images are built at the price of processors that nobody else wants, not of kernels and servers.

Linux shares its processors among sessions first where that is switched on (sched(7), "The autogroup feature"), and looks at nice values only
within one. So each new session that shall give way has to be told so, too.
"""

from __future__ import annotations

import os
import time
from errno import EAGAIN
from pathlib import Path

# Linux lets ordinary users change one session in a tenth of a second, all of them together, and tells nobody when that is over.
_PAUSE_S = 0.1
_TRIALS = 10


def give_way(niceness: int) -> None:
    """Lower the priority of this process and of all that it will start, as nice(1) does: 19 is the lowest. It is never raised."""
    if niceness > os.getpriority(os.PRIO_PROCESS, 0):
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
    carry_priority(os.getpid())


def carry_priority(pid: int) -> None:
    """Have the session of a process that was started from here give way as this process does."""
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    if niceness > 0:
        _write(Path(f"/proc/{pid}/autogroup"), str(niceness))


def _write(path: Path, text: str) -> None:
    for _ in range(_TRIALS):
        try:
            path.write_text(text)
        except OSError as error:
            # Not built into this kernel, or the process is gone: then there is nothing to do.
            if error.errno != EAGAIN:
                return
            time.sleep(_PAUSE_S)
        else:
            return
