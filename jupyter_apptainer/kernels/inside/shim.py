"""Runs inside the container, before the kernel: makes it the leader of a session of its own.

`exec instance://` starts a program with session and process group 0 as seen from inside, so a kernel that wants to interrupt
its group (ipykernel does) would miss the child processes of a cell, and the host would have no group to send a signal to.
With --lent, what cannot be imported otherwise is looked for in FOLDER. With --bridge, FOLDER is `jupyter_apptainer` where the image has none. With --overlay, packages may be installed while the kernel
runs, into a file system that tells of it late. In a read-only image `%pip install` says what to do. Memory that large outputs and arrays give
back is kept for the next ones, output waits for clients that are late, and debugpy is loaded when somebody debugs.
Python 2.7 to 3.14, standard library only; all that stays of it are an entry in `sys.modules`, a word of advice in IPython's
`%pip`, and with the options a finder each.

    python shim.py [--overlay] [--bridge FOLDER] [--lent FOLDER] -m MODULE [ARGUMENT]...
    python shim.py [--overlay] [--bridge FOLDER] [--lent FOLDER] SCRIPT [ARGUMENT]...
"""

import os
import sys

LARGE_BYTES = 8 << 20
OUTPUT_QUEUE = 10000


class LentFinder(object):  # noqa: UP004 - Python 2.7 has another kind of class
    """Finds the packages of one folder, after all others.

    Not an entry of `sys.path`: that is handed on to other Pythons (multiprocessing, Spark), and paths that a notebook adds
    would come after it.
    """

    def __init__(self, folder):  # type: ignore[no-untyped-def]
        self.folder = folder

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        from importlib.machinery import PathFinder

        return PathFinder.find_spec(name, [self.folder]) if path is None else None

    def find_distributions(self, context=None):  # type: ignore[no-untyped-def]
        # Some of the packages ask for their own version, and Matplotlib for the entry points of its backends.
        from importlib.metadata import DistributionFinder, MetadataPathFinder

        name = context.name if context is not None else None
        return MetadataPathFinder.find_distributions(DistributionFinder.Context(name=name, path=[self.folder]))


class BridgeFinder(object):  # noqa: UP004
    """Has `%load_ext jupyter_apptainer` load the bridge's side of the container, where nothing else of that name is found."""

    def __init__(self, path):  # type: ignore[no-untyped-def]
        self.path = path

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]  # as above
        from importlib.util import spec_from_file_location

        if name != "jupyter_apptainer":
            return None
        return spec_from_file_location(name, self.path + "/__init__.py", submodule_search_locations=[self.path])


class LateFinder(object):  # noqa: UP004
    """Looks once more for a module that nobody has found, and does not rely on what is remembered of the folders.

    Python lists a folder anew when its time of change is another one. Through fuse2fs that time is up to seconds late, so
    `import` right after `%pip install` would fail.
    """

    @staticmethod
    def find_spec(name, path=None, target=None):  # type: ignore[no-untyped-def]  # as above
        if path is not None:
            return None
        from importlib.machinery import PathFinder

        PathFinder.invalidate_caches()
        return PathFinder.find_spec(name, path, target)


class AdviceFinder(object):  # noqa: UP004
    """Has `%pip install` and its like say why they cannot work, where nothing can be written.

    pip itself names a folder and an error number, after it has fetched everything.
    """

    module = "IPython.core.magics.packaging"
    magics = ("pip", "conda", "mamba", "micromamba", "uv")
    changing = ("install", "uninstall", "remove", "update", "upgrade", "add", "sync")

    @classmethod
    def find_spec(cls, name, path=None, target=None):  # type: ignore[no-untyped-def]  # as above
        if name != cls.module:
            return None
        from importlib.machinery import PathFinder

        sys.meta_path.remove(cls)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_advise(module):  # type: ignore[no-untyped-def]
                run(module)
                for magic in cls.magics:
                    if hasattr(module.PackagingMagics, magic):
                        cls.advise(module.PackagingMagics, magic)  # type: ignore[no-untyped-call]

            spec.loader.exec_module = run_and_advise  # type: ignore[method-assign]  # of this one loader
        return spec

    @classmethod
    def advise(cls, magics, name):  # type: ignore[no-untyped-def]
        import functools

        command = getattr(magics, name)

        @functools.wraps(command)
        def advised(self, line):  # type: ignore[no-untyped-def]
            if set(line.split()[:2]) & set(cls.changing) and not cls.has_place(line):  # type: ignore[no-untyped-call]
                from IPython.core.error import UsageError

                raise UsageError(
                    "%"
                    + name
                    + " has nowhere to write: the image is read-only, and this kernel has no overlay that takes changes. Add one"
                    " in a terminal outside, `jupyter apptainer kernel edit KERNEL --overlay auto`, then shut the kernel down and start it again"
                )
            return command(self, line)

        setattr(magics, name, advised)

    @staticmethod
    def has_place(line):  # type: ignore[no-untyped-def]
        import sysconfig

        if any(
            word.startswith(("-t", "--target", "--prefix", "--root", "-p", "-h", "--help", "--dry-run"))
            for word in line.split()
        ):
            return True
        return os.access(sysconfig.get_path("purelib"), os.W_OK)


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
    install_finders()  # type: ignore[no-untyped-call]
    run_program()  # type: ignore[no-untyped-call]


def install_finders():  # type: ignore[no-untyped-def]
    """Do what the options say, and take them away."""
    if sys.argv[1] == "--overlay":
        del sys.argv[1]
        # Python 2.7 remembers nothing of folders, and asks finders in another way.
        if sys.version_info >= (3, 4):  # noqa: UP036
            sys.meta_path.append(LateFinder)
    if sys.version_info >= (3, 4):  # noqa: UP036
        sys.meta_path.insert(0, AdviceFinder)
    if sys.argv[1] == "--bridge":
        if sys.version_info >= (3, 4):  # noqa: UP036
            sys.meta_path.append(BridgeFinder(sys.argv[2]))  # type: ignore[no-untyped-call]
        del sys.argv[1:3]
    if sys.argv[1] == "--lent":
        sys.meta_path.append(LentFinder(sys.argv[2]))  # type: ignore[no-untyped-call]
        del sys.argv[1:3]


def keep_freed_memory():  # type: ignore[no-untyped-def]
    """Have glibc keep up to 16 MiB that were given back, and not return them to Linux page by page.

    Packing a display of 1 MB takes twice as long otherwise. Whenever glibc frees a block that it has mapped, it begins to take such blocks from the heap, of
    which it keeps twice as much (mallopt(3)); this is the first such block. It is never touched, so it takes no memory.
    """
    bytes(LARGE_BYTES)


def widen_output():  # type: ignore[no-untyped-def]
    """Have 10000 messages of an ipykernel wait for a client that is late. What does not fit is lost, and with it the word that the cell is done.

    ZMQ's own queue has 1000. Behind a port Linux holds thousands more, behind a socket hardly any.
    """
    try:
        from ipykernel.kernelapp import IPKernelApp
    except ImportError:
        # Whoever runs it will say so.
        return
    import functools

    init = IPKernelApp.init_iopub

    @functools.wraps(init)
    def init_iopub(self, context):  # type: ignore[no-untyped-def]
        # What the sockets have that a context of pyzmq makes.
        context.sndhwm = OUTPUT_QUEUE
        try:
            init(self, context)  # type: ignore[no-untyped-call]
        finally:
            del context.sndhwm

    IPKernelApp.init_iopub = init_iopub  # type: ignore[method-assign]


def defer_debugger():  # type: ignore[no-untyped-def]
    """Have ipykernel load debugpy when somebody debugs, and not at its start: a fifth of the memory and of the time of that.

    ipykernel itself needs it for its list of variables alone; where a debugger is started, the kernel is told to import it.
    """
    if "debugpy" in sys.modules or "ipykernel.debugger" in sys.modules:
        return
    # To import it fails, as where there is none.
    sys.modules["debugpy"] = None  # type: ignore[assignment]
    try:
        from ipykernel import debugger
    except ImportError:
        # No ipykernel, or one older than its debugger: it will import what it needs itself.
        return
    finally:
        del sys.modules["debugpy"]
    explorer = getattr(debugger, "VariableExplorer", None)
    if explorer is None or getattr(debugger, "_is_debugpy_available", None) is not False or not has_module("debugpy"):  # type: ignore[no-untyped-call]
        # There is none, or this ipykernel does it in another way: it shall import what it finds.
        del sys.modules["ipykernel.debugger"]
        return

    class LateExplorer(object):  # noqa: UP004
        real = None

        def __getattr__(self, name):  # type: ignore[no-untyped-def]
            if self.real is None:
                load_debugger(debugger, explorer)  # type: ignore[no-untyped-call]
                self.real = explorer()  # type: ignore[misc]
            return getattr(self.real, name)

    debugger.VariableExplorer = LateExplorer  # type: ignore[misc, assignment]
    debugger._is_debugpy_available = True


def load_debugger(debugger, explorer):  # type: ignore[no-untyped-def]
    """Do what `ipykernel.debugger` does when it is imported. The first of these is what makes the others to be found."""
    from debugpy.server import api

    from _pydevd_bundle import pydevd_frame_utils, pydevd_suspended_frames  # type: ignore[import-not-found]  # isort: skip

    debugger.api = api
    debugger.pydevd_frame_utils = pydevd_frame_utils
    debugger.SuspendedFramesManager = pydevd_suspended_frames.SuspendedFramesManager
    debugger._FramesTracker = pydevd_suspended_frames._FramesTracker
    debugger.VariableExplorer = explorer


def has_module(name):  # type: ignore[no-untyped-def]
    from importlib.util import find_spec

    return find_spec(name) is not None


def run_program():  # type: ignore[no-untyped-def]
    """Run the module or script as Python would have."""
    import runpy

    keep_freed_memory()  # type: ignore[no-untyped-call]
    if sys.argv[1] == "-m":
        module = sys.argv[2]
        sys.argv[:] = sys.argv[2:]
        sys.path.insert(0, os.getcwd())
        if module == "ipykernel_launcher":
            defer_debugger()  # type: ignore[no-untyped-call]
            widen_output()  # type: ignore[no-untyped-call]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = sys.argv[1:]
        sys.path.insert(0, os.path.dirname(os.path.abspath(sys.argv[0])))
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()  # type: ignore[no-untyped-call]
