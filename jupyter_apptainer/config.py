"""Settings, as traitlets: for users in `jupyter_apptainer_config.py`, for servers in their own configuration file as well.

c.ApptainerConfig.engine_path = "/opt/apptainer/bin/apptainer"
"""

from __future__ import annotations

from jupyter_core.paths import jupyter_config_path
from traitlets import Bool, Dict, Enum, Float, Int, List, Unicode
from traitlets.config import Config, Configurable
from traitlets.config.loader import ConfigFileNotFound, JSONFileConfigLoader, PyFileConfigLoader

CONFIG_NAME = "jupyter_apptainer_config"


class ApptainerConfig(Configurable):
    """What holds for every container kernel of this user or server."""

    engine_path = Unicode(
        "",
        help="""The apptainer or singularity program. Empty (the default): search PATH, then the folder of
        `jupyter apptainer engine install`. Example: "/opt/apptainer/bin/apptainer".""",
    ).tag(config=True)

    transport = Enum(
        ("auto", "ipc", "tcp"),
        default_value="auto",
        help="""How server and kernel talk. "ipc": sockets in a folder that only you can enter. "tcp": ports on this machine's
        loopback, encrypted and authenticated with CurveZMQ; needs ipykernel 7.3 in the image. "auto" (the default): ipc. Clients that
        run the argv of a kernel.json choose for themselves.""",
    ).tag(config=True)

    sign_ipc_messages = Bool(
        False,
        help="""Sign the messages between server and kernel over sockets too. Only you can reach those, and whoever can may read the key as well, so
        that a signature adds nothing there and large outputs take longer. Over tcp they are always signed. Default: False.""",
    ).tag(config=True)

    start_timeout_s = Float(
        60.0,
        help="""How many seconds the container may take to come up, and then the kernel until it listens, each, before the start is
        given up. Default: 60.""",
    ).tag(config=True)

    bridge = Enum(
        ("off", "read", "full"),
        default_value="read",
        help="""What `%apptainer` in a container kernel may ask of the host, where its kernel.json does not say: "off" (nothing), "read"
        (listings, status, help) or "full" (everything that you may do there). Default: "read".""",
    ).tag(config=True)

    read_ahead = Bool(
        True,
        help="""Read the files that a kernel opens at its start ahead of it, as soon as the image is mounted. Default: True.""",
    ).tag(config=True)

    fork_kernels = Bool(
        True,
        help="""Have a process in each container import ipykernel once and fork its kernels from there, so that a restart takes a fraction of
        a second. It adds some 20 MB to a container for `fork_rest_s`, and less than 1 MB from then on. Not used with limits of memory or processes, nor where this machine has less than
        1 GiB left. Default: True.""",
    ).tag(config=True)

    spare_containers = Int(
        0,
        min=0,
        help="""How many containers a Jupyter server keeps ready that no kernel has run in. After the start of a kernel one like its own
        is started, and the next kernel that asks for the same is forked there, which takes a fraction of a start. Each needs some 65 MB, and what
        `preload` loads. None is started where this machine has less than 1 GiB left. 0: none. Default: 0. Example: 1.""",
    ).tag(config=True)

    spare_kernels = Int(
        1,
        min=0,
        help="""How many kernels the process that forks them has ready, started but for the notebook's own: in a spare container, in an instance that
        kernels share, and with `preload`, where a restart takes one. Each adds some 20 MB. None where this machine has less than 1 GiB left. 0: none.
        Default: 1.""",
    ).tag(config=True)

    spare_idle_s = Float(
        600.0,
        min=0.0,
        help="""After how many seconds a spare container or kernel is ended that nobody has asked for. Default: 600.""",
    ).tag(config=True)

    fork_rest_s = Float(
        10.0,
        min=0.0,
        help="""After how many seconds the process that has forked a kernel gives back its memory, some 20 MB; the next restart then takes 0.1 s longer,
        and half as long as that of a local kernel. Not where kernels share an instance, nor with `preload`. 0: never. Default: 10.""",
    ).tag(config=True)

    check_image = Bool(
        True,
        help="""Before the first kernel of an image, ask it for its Python and ipykernel, so that a kernel that cannot start says
        why, and one without ipykernel gets it lent. The answer is kept until the image changes. Default: True.""",
    ).tag(config=True)

    ca_bundle = Unicode(
        "",
        help="""A file of certificates in PEM format, for builds and pulls where a site or its proxy has its own authority. Empty (the
        default): what SSL_CERT_FILE, PIP_CERT or REQUESTS_CA_BUNDLE name. Example: "/etc/ssl/certs/ca-certificates.crt".""",
    ).tag(config=True)

    build_cache_mib = Int(
        10240,
        min=0,
        help="""How many MiB of disk the layers of image builds may take; those that were not used for longest go first, after each
        build. 0: builds keep and use none. Default: 10240. Example: 40960.""",
    ).tag(config=True)

    unpacked_images = Unicode(
        "0",
        help="""How much disk unpacked copies of SIF images may take, all together: MiB, or a number with M, G or T. After the first start of a kernel
        its image is unpacked in the background, and later kernels start from the copy, which is faster; those that were not used for longest
        go first. "0": none. Default: "0". Example: "20G".""",
    ).tag(config=True)

    unpacked_images_dir = Unicode(
        "",
        help="""The folder for unpacked copies, on a disk of this machine; `~` and `$NAME` are filled in, and a folder of your own is made in it. Empty
        (the default): your cache folder. On clusters choose scratch space of the node. Example: "/scratch/$USER".""",
    ).tag(config=True)

    task_niceness = Int(
        10,
        min=0,
        max=19,
        help="""How far builds, pulls and other tasks give way to kernels, servers and everybody else, as nice(1) counts: 0 is not at all, 19 as
        far as possible. On a machine that has nothing else to do they are as fast as ever. Default: 10. Example: 19.""",
    ).tag(config=True)

    task_kept_days = Float(
        14.0,
        min=0,
        help="""For how many days the records of builds, pulls and other tasks are kept after their end; what they made stays. Default: 14.
        Example: 2.""",
    ).tag(config=True)

    task_kept_count = Int(
        200,
        min=0,
        help="""How many records of tasks that are over are kept at most; the oldest go first. Default: 200. Example: 50.""",
    ).tag(config=True)

    named_binds = Dict(
        key_trait=Unicode(),
        value_trait=Unicode(),
        help="""Binds by name, for notebooks: their metadata says "binds": ["data"], and each reader says here where that is. Values
        as in kernel.json. Default: {}. Example: {"data": "/srv/data:/data:ro"}.""",
    ).tag(config=True)

    force = Dict(
        key_trait=Unicode(),
        help="""Fields of kernel.json that every container kernel gets, whatever kernel.json and notebook say: lists are added to,
        `env` is merged by name, all else is replaced. Default: {}. Example: {"isolation": "contain"}.""",
    ).tag(config=True)

    image_dirs = List(
        Unicode(),
        default_value=["~/images"],
        help="""Folders that `jupyter apptainer image list` looks into, besides our own; `~` and `$NAME` are filled in. `image pull`
        puts images into the first one that exists. Default: ["~/images"]. Example: ["/scratch/$USER/images"].""",
    ).tag(config=True)

    no_https = List(
        Unicode(),
        default_value=[],
        help="""Registries that speak plain http, as HOST or HOST:PORT; "*" is all. Passwords for them cross the network as they
        are. Default: none. Example: ["localhost:5000"].""",
    ).tag(config=True)


def load_config() -> Config:
    """Read jupyter_apptainer_config.py and .json from the configuration folders that `jupyter --paths` lists; earlier ones win."""
    merged = Config()
    for folder in reversed(jupyter_config_path()):
        merged.merge(load_folder(folder))
    return merged


def load_folder(folder: str) -> Config:
    """Read the same from one folder: empty where there is neither file."""
    merged = Config()
    for loader in (JSONFileConfigLoader, PyFileConfigLoader):
        suffix = ".json" if loader is JSONFileConfigLoader else ".py"
        try:
            merged.merge(loader(CONFIG_NAME + suffix, path=folder).load_config())
        except ConfigFileNotFound:
            continue
    return merged
