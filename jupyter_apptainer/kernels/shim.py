"""Runs inside the container, before the kernel: makes it the leader of a session of its own.

`exec instance://` starts a program with session and process group 0 as seen from inside, so a kernel that wants to interrupt
its group (ipykernel does) would miss the child processes of a cell, and the host would have no group to send a signal to.
Python 2.7 to 3.14, standard library only; all that stays of it is an entry in `sys.modules`.

    python shim.py -m MODULE [ARGUMENT]...
    python shim.py SCRIPT [ARGUMENT]...
"""

import os
import sys


def main():  # type: ignore[no-untyped-def]  # Python 2.7 has no annotations
    try:  # noqa: SIM105 - contextlib.suppress is not in Python 2.7
        os.setsid()
    except OSError:
        # Already a leader: as the instance's main process.
        pass
    # `python -m` puts the working directory first, `python SCRIPT` the script's folder; here it is the shim's own.
    sys.path.pop(0)
    # ipykernel leaves the files of the modules that it finds at its start out of the debugger's call stack.
    sys.modules["_jupyter_apptainer_shim"] = sys.modules["__main__"]
    import runpy

    if sys.argv[1] == "-m":
        module = sys.argv[2]
        sys.argv[:] = sys.argv[2:]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = sys.argv[1:]
        sys.path.insert(0, os.path.dirname(os.path.abspath(sys.argv[0])))
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()  # type: ignore[no-untyped-call]
