# Runs inside the image, under any Python from 2.7 on, with nothing but the standard library: keep it plain.
# Prints one line of JSON behind a marker: which Python this is, what a kernel needs and finds, and which files its
# start opens, in the order of first use. `probe` sends this file's text and reads the answer. An argument names a folder
# of packages that are lent to the image.
# mypy: ignore-errors
import json
import os
import platform
import sys
import sysconfig

MARKER = "jupyter-apptainer-probe:"
# What a start of ipykernel imports, the last of them while it already runs. Each may be missing.
START_MODULES = [
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "ipykernel.zmqshell",
    "psutil",
    "tornado.platform.asyncio",
    "ipykernel.debugger",
    "debugpy.server.api",
    "IPython.core.debugger",
    "IPython.core.oinspect",
    "sqlite3",
    "IPython.core.completerlib",
    "IPython.extensions.storemagic",
    "encodings.idna",
    "runpy",
    "faulthandler",
    "IPython.core.logger",
]


def list_mapped():
    try:
        with open("/proc/self/maps") as stream:
            rows = [line.split(None, 5) for line in stream]
    except (IOError, OSError):  # noqa: UP024
        return []
    return [row[5].rstrip("\n") for row in rows if len(row) == 6 and row[5].startswith("/")]


def list_module_files():
    found = []
    for module in list(sys.modules.values()):
        spec = getattr(module, "__spec__", None)
        if getattr(spec, "origin", None) == "frozen":
            continue
        cached = getattr(spec, "cached", None)
        source = getattr(module, "__file__", None)
        if cached and os.path.isfile(cached):
            found.append(cached)
        elif source:
            found.append(source)
    return found


def keep_files(paths):
    seen = set()
    kept = []
    for path in paths:
        path = os.path.abspath(path)
        if path not in seen and os.path.isfile(path):
            seen.add(path)
            kept.append(path)
    return kept


def try_import(name):
    try:
        __import__(name)
    except Exception as error:  # noqa: BLE001  # a package of the image may raise anything; it is reported
        return error
    return None


def get_version(name):
    module = sys.modules.get(name)
    if module is None and try_import(name) is None:
        module = sys.modules[name]
    version = getattr(module, "__version__", None)
    return version if version is None else str(version)


def find_problem():
    error = try_import("ipykernel")
    if error is None:
        error = try_import("ipykernel.kernelapp")
    elif isinstance(error, ImportError) and str(error).replace("'", "") == "No module named ipykernel":
        return None
    if error is None:
        return None
    return "%s: %s" % (type(error).__name__, error)  # noqa: UP031


def get_abi():
    if platform.python_implementation() != "CPython":
        return None
    threading = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    return "cp%d%d%s" % (sys.version_info[0], sys.version_info[1], threading)  # noqa: UP031


def get_libc():
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "musl").replace(" ", "")
    except (AttributeError, ValueError, OSError):
        return "musl"


def list_packages():
    try:
        from importlib.metadata import distributions
    except ImportError:
        return {}
    found = {}
    for each in distributions():
        # A package that is half removed has neither name nor version.
        name = each.metadata["Name"]
        if name and each.version:
            found.setdefault(name, each.version)
    return found


def write_bundle(target, path):
    # The code of all modules that are loaded now, in one file: 8 bytes for the length of the head, head, codes. Returns their
    # folders, but for those that are reached through links, or have links in them.
    import importlib.util
    import marshal
    from importlib.machinery import SourceFileLoader

    entries, codes, offset = {}, [], 0
    folders_with, folders_without = set(), set()
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        if spec is None or spec.name != name or type(spec.loader) is not SourceFileLoader:
            continue
        try:
            status = os.stat(spec.origin)
            code = marshal.dumps(spec.loader.get_code(name))
        except (OSError, ImportError, ValueError, SyntaxError):
            continue
        folders = None if spec.submodule_search_locations is None else list(spec.submodule_search_locations)
        entries[name] = (spec.origin, spec.cached, folders, status.st_size, status.st_mtime, offset, len(code))
        codes.append(code)
        offset += len(code)
        (folders_without if os.path.realpath(spec.origin) == spec.origin else folders_with).add(
            os.path.dirname(spec.origin)
        )
    plain = sorted(folders_without - folders_with)
    head = marshal.dumps((importlib.util.MAGIC_NUMBER, path, entries, frozenset(plain)))
    with open(target, "wb") as stream:
        stream.write(len(head).to_bytes(8, "little") + head)
        for code in codes:
            stream.write(code)
    return plain


def is_start_free():
    # The engine writes a script of comments where an image's definition has none.
    try:
        with open("/.singularity.d/startscript") as stream:
            lines = [line.strip() for line in stream]
    except (IOError, OSError, UnicodeError):  # noqa: UP024
        return False
    return not [line for line in lines if line and not line.startswith("#")]


def probe():
    if "" in sys.path:
        sys.path.remove("")
    path = list(sys.path)
    # `python -c` leaves "-c" in front.
    sys.path.extend(sys.argv[1:])
    mapped = list_mapped()
    problem = find_problem()
    has_ipykernel = problem is not None or "ipykernel" in sys.modules
    plain = []
    if has_ipykernel and problem is None:
        for name in START_MODULES:
            try_import(name)
        if os.environ.get("JPA_BUNDLE") and sys.version_info >= (3, 8):
            plain = write_bundle(os.environ["JPA_BUNDLE"], path)
    return {
        "python": sys.executable,
        "python_version": "%d.%d.%d" % sys.version_info[:3],  # noqa: UP031
        "implementation": platform.python_implementation(),
        "ipykernel": (get_version("ipykernel") or "unknown") if has_ipykernel else None,
        "debugpy": get_version("debugpy"),
        "psutil": get_version("psutil"),
        "jupyter_client": get_version("jupyter_client"),
        "problem": problem,
        "abi": get_abi(),
        "libc": get_libc(),
        "machine": platform.machine(),
        "packages": {} if has_ipykernel else list_packages(),
        "start_files": keep_files(mapped + list_module_files() + list_mapped()) if has_ipykernel else [],
        "plain_folders": plain,
        "is_start_free": is_start_free(),
        "folders": [path for path in sys.path if os.path.isdir(path)],
    }


if __name__ == "__main__":
    sys.stdout.write("\n" + MARKER + json.dumps(probe()) + "\n")
