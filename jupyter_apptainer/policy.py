"""Who allows what: `ApptainerPolicy` for every container kernel, `NotebookPolicy` for what a notebook's metadata may ask.

Each configuration folder's `ApptainerPolicy` stands by itself and all of them must agree, so that no file can loosen another's:
a user's own can only add limits to those in /etc/jupyter. `NotebookPolicy` is the reader's, and ordinary configuration.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Iterator
from dataclasses import replace

from jupyter_core.paths import jupyter_config_path
from traitlets import Bool, Enum, List, TraitError, Unicode
from traitlets.config import Config, Configurable

from .config import CONFIG_NAME, load_folder
from .errors import PolicyError
from .rules import ANY, BRIDGES, KERNELS, Rules, check_image_patterns

# Whatever a user's environment says, these are looked at; so is the folder of the Python environment.
SYSTEM_FOLDERS = ("/etc/jupyter", "/usr/local/etc/jupyter")

ISOLATIONS = ("default", "contain", "containall")
_LISTS = ("images", "binds", "overlays", "homes", "env", "inherit_env", "extra_flags")


class ApptainerPolicy(Configurable):
    """What a container kernel may have, wherever its settings come from."""

    images = List(
        Unicode(),
        [ANY],
        help="""Images that kernels may run in: folders, files and globs ("/shared/images"; what lies below a folder counts), the
        beginning of a URI ("docker://ghcr.io/lab"), "sha256:" with a file's digest, "signed:" with the fingerprint of a PGP key, or
        "*". Default: ["*"], every image.""",
    ).tag(config=True)

    binds = List(
        Unicode(),
        [ANY],
        help="""Folders and files that kernels may bind, with what lies below them; links are followed first. ":ro" at the end: for
        reading only. `~` and {username} are filled in. The notebook's own folder is always there. Default: ["*"], every path.
        Example: ["/scratch/{username}", "/data:ro"].""",
    ).tag(config=True)

    overlays = List(
        Unicode(),
        [ANY],
        help="""Folders in which overlays may lie, "auto" for a file of the kernel's own, "tmpfs" for layers in memory. Default: ["*"], everywhere.
        Example: ["~/overlays", "tmpfs"].""",
    ).tag(config=True)

    homes = List(
        Unicode(),
        [ANY],
        help="""What the home folder in the container may be: "host", "none", or folders of the host. Default: ["*"], anything.""",
    ).tag(config=True)

    env = List(
        Unicode(),
        [ANY],
        help="""Variables that kernels may set: NAME or PREFIX_*. Default: ["*"], all.""",
    ).tag(config=True)

    inherit_env = List(
        Unicode(),
        [ANY],
        help="""Variables of the server that kernels may take over besides the usual ones: NAME or PREFIX_*. Default: ["*"], all.""",
    ).tag(config=True)

    extra_flags = List(
        Unicode(),
        [ANY],
        help="""Words that `extra_flags` may contain, as globs. Default: ["*"], any, as long as nothing else is limited, and none
        otherwise: a flag of the engine could go round every other limit. Example: ["--no-privs"].""",
    ).tag(config=True)

    networks = List(
        Enum(("host", "none", ANY)),
        [ANY],
        help="""Networks that kernels may have: "host", "none". Default: ["*"], both.""",
    ).tag(config=True)

    isolation = Enum(
        ISOLATIONS,
        default_value="default",
        help="""The least isolation of a kernel: "default", "contain" or "containall". Default: "default".""",
    ).tag(config=True)

    bridge = Enum(
        tuple(reversed(BRIDGES)),
        default_value="full",
        help="""The most that `%apptainer` in a kernel may ask of the host: "off", "read" or "full". A kernel that does not say what it
        wants gets no more than this. Default: "full".""",
    ).tag(config=True)

    allow_notebooks = Bool(
        True,
        help="""Whether the metadata of a notebook may say anything at all about its container. Default: True; what it may say is
        `NotebookPolicy`, which each user can set.""",
    ).tag(config=True)

    show_other_users = Bool(
        False,
        help="""Whether `jupyter apptainer gpu` and the panel name other users' processes; otherwise they are counted. Counts only in
        a folder that the user cannot write to, and in the configuration of the server. Default: False.""",
    ).tag(config=True)


class NotebookPolicy(Configurable):
    """What the metadata of a notebook may ask for. The defaults suit notebooks of strangers."""

    enabled = Bool(
        True,
        help="""Whether the field `apptainer` of a notebook's metadata is read when its kernel starts. Default: True.""",
    ).tag(config=True)

    fields = List(
        Unicode(),
        ["image", "nv", "rocm", "binds", "overlays", "env", "home", "isolation", "network", "bridge"],
        help="""Fields that a notebook may have. Whatever this says, it can only narrow `home`, `isolation`, `network` and `bridge`. Fields
        that are added here are honoured as they are, or as far as the lists below go. Default: those that choose an image and
        narrow what it sees.""",
    ).tag(config=True)

    images = List(
        Unicode(),
        [KERNELS],
        help="""Images that a notebook may choose: as in `ApptainerPolicy.images`, and "kernels" for those of your own container
        kernels. Default: ["kernels"]. Example: ["kernels", "~/images", "sha256:9f86d0…"].""",
    ).tag(config=True)

    binds = List(
        Unicode(),
        [],
        help="""Folders that a notebook may bind by their path, as in `ApptainerPolicy.binds`. Binds by name
        (`ApptainerConfig.named_binds`) are always allowed. Default: [], none. Example: ["/data:ro"].""",
    ).tag(config=True)

    overlays = List(
        Unicode(),
        ["tmpfs"],
        help="""Folders of overlays that a notebook may use, and "tmpfs" for layers in memory. An overlay brings programs that run
        when the kernel starts. Default: ["tmpfs"].""",
    ).tag(config=True)

    env = List(
        Unicode(),
        [
            "OMP_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
            "MKL_NUM_THREADS",
            "NUMEXPR_NUM_THREADS",
            "NUMBA_NUM_THREADS",
            "NOTEBOOK_*",
        ],
        help="""Variables that a notebook may set: NAME or PREFIX_*. Many others make programs run code (PYTHONPATH, LD_PRELOAD,
        BASH_ENV, MPLBACKEND, …). Default: numbers of threads, and names that begin with NOTEBOOK_.""",
    ).tag(config=True)

    inherit_env = List(
        Unicode(),
        [],
        help="""Variables of the server that a notebook may take over, once `fields` has "inherit_env". Default: [], none.""",
    ).tag(config=True)

    extra_flags = List(
        Unicode(),
        [],
        help="""Words that a notebook may have in `extra_flags`, once `fields` has "extra_flags". Default: [], none.""",
    ).tag(config=True)


def load_policies(server: Config | None = None) -> tuple[Rules, ...]:
    """Return the rules of each party that has an `ApptainerPolicy`, administrators first. A kernel must be allowed by all.

    server: the configuration of the running server. Raises PolicyError where a policy cannot be understood: then nothing starts.
    """
    return tuple(_build_rules(_build_policy(section, origin), section, origin) for origin, section in _iter(server))


def forbids_notebooks(server: Config | None = None) -> str | None:
    """Return the origin of the first policy that has `allow_notebooks = False`, None where there is none."""
    return next((o for o, section in _iter(server) if not _build_policy(section, o).allow_notebooks), None)


def shows_other_users(server: Config | None = None) -> bool:
    """Say whether an administrator lets everybody see whose process uses a GPU. A user's own policy can only forbid it."""
    said = [
        (_build_policy(section, origin).show_other_users, is_administrators)
        for origin, section, is_administrators in _iter_with_author(server)
        if "show_other_users" in section
    ]
    return all(shows for shows, _ in said) and any(is_administrators for _, is_administrators in said)


def build_notebook_rules(policy: NotebookPolicy) -> Rules:
    """Return the allow-lists for notebooks."""
    origin = "your NotebookPolicy"
    check_image_patterns(policy.images, origin)
    names = ("images", "binds", "overlays", "env", "inherit_env", "extra_flags")
    lists = {name: tuple(getattr(policy, name)) for name in names}
    return Rules(origin=origin, section="c.NotebookPolicy", **lists)


def load_notebook_policy(config: Config) -> NotebookPolicy:
    """Return the reader's policy from the merged configuration. Raises PolicyError for one that cannot be understood."""
    section = config.get("NotebookPolicy", Config())
    _check_names(NotebookPolicy, section, "the configuration")
    try:
        return NotebookPolicy(config=config)
    except TraitError as error:
        raise PolicyError(
            f"NotebookPolicy: {error}", hint="correct it; until then no container kernel starts"
        ) from error


def find_user() -> tuple[str, str]:
    """Return name and home of this user from passwd(5): the environment has no say in what a policy means."""
    entry = pwd.getpwuid(os.getuid())
    return entry.pw_name, entry.pw_dir


def _iter(server: Config | None) -> Iterator[tuple[str, Config]]:
    return ((origin, section) for origin, section, _ in _iter_with_author(server))


def _iter_with_author(server: Config | None) -> Iterator[tuple[str, Config, bool]]:
    """Yield each policy, and whether an administrator has written it."""
    for folder in dict.fromkeys([*SYSTEM_FOLDERS, os.path.join(sys.prefix, "etc", "jupyter"), *jupyter_config_path()]):
        if os.path.isdir(folder) and not os.access(folder, os.X_OK):
            raise PolicyError(
                f"the folder {folder} cannot be entered, so its policy is not known and no container kernel starts",
                hint=f"ask its owner: `chmod a+rx {folder}`",
            )
        try:
            loaded = load_folder(folder)
        except (OSError, SyntaxError, ValueError) as error:
            raise PolicyError(
                f"the policy in {folder} cannot be read, so no container kernel starts: {error}",
                hint=f"ask its owner: `chmod a+r {folder}/{CONFIG_NAME}.*`",
            ) from error
        if "ApptainerPolicy" in loaded:
            is_administrators = os.getuid() == 0 or not os.access(folder, os.W_OK)
            yield f"the policy in {folder}", loaded.ApptainerPolicy, is_administrators
    if server is not None and "ApptainerPolicy" in server:
        yield "the policy of this server", server.ApptainerPolicy, True


def _build_policy(section: Config, origin: str) -> ApptainerPolicy:
    _check_names(ApptainerPolicy, section, origin)
    try:
        return ApptainerPolicy(config=Config(ApptainerPolicy=section))
    except TraitError as error:
        raise PolicyError(
            f"{origin} is wrong: {error}", hint="until it is corrected, no container kernel starts"
        ) from error


def _check_names(cls: type[Configurable], section: Config, origin: str) -> None:
    """A misspelled trait would only be warned of by traitlets, and its limit would not hold."""
    known = cls.class_own_traits(config=True)
    for name in section:
        if name not in known:
            raise PolicyError(
                f"{origin} has {cls.__name__}.{name}, which does not exist",
                hint=f"{cls.__name__} has {', '.join(sorted(known))}; until it is corrected, no container kernel starts",
            )


def _build_rules(policy: ApptainerPolicy, section: Config, origin: str) -> Rules:
    check_image_patterns(policy.images, origin)
    if KERNELS in policy.images:
        raise PolicyError(
            f'{origin} has "{KERNELS}" among its images: anybody can make a kernel of any image',
            hint="name folders, digests or signers; until it is corrected, no container kernel starts",
        )
    rules = Rules(
        origin=origin,
        section="c.ApptainerPolicy",
        networks=tuple(policy.networks),
        isolations=ISOLATIONS[ISOLATIONS.index(policy.isolation) :],
        bridges=BRIDGES[BRIDGES.index(policy.bridge) :],
        **{name: tuple(getattr(policy, name)) for name in _LISTS},
    )
    is_limited = any(name in section for name in ("networks", "isolation", *_LISTS) if name != "extra_flags")
    return replace(rules, extra_flags=()) if is_limited and "extra_flags" not in section else rules
