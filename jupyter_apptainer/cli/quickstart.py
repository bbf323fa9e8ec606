"""`jupyter apptainer quickstart`: engine, starter image and kernelspec, whatever of them is missing."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..config import ApptainerConfig, load_config
from ..engine.install import install_engine
from ..engine.locate import get_engine
from ..images.starter import build_starter_image
from ..kernels.kernelspecs import add_kernelspec
from ..kernels.prepare import check_kernel
from ..kernels.spec import ContainerSpec
from ..places import find_places
from .output import print_note
from .progress import show_progress

KERNEL = "apptainer-starter"
DISPLAY_NAME = "Python (Apptainer starter)"


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "quickstart",
        help="engine, starter image and kernel in one step",
        description="Get an engine if there is none, make a small image with Python, ipykernel, ipywidgets, numpy and "
        "matplotlib, and a kernel of it that every Jupyter of yours shows. What is there already is kept.",
        epilog="examples:\n  jupyter apptainer quickstart\n"
        "  jupyter apptainer quickstart --ca-bundle ~/campus-proxy.pem",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--ca-bundle",
        metavar="FILE",
        help="certificates of a proxy, in PEM format (default: ApptainerConfig.ca_bundle, or what SSL_CERT_FILE, PIP_CERT or REQUESTS_CA_BUNDLE name)",
    )
    parser.add_argument("--rebuild", action="store_true", help="make the image anew")
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    settings, places = ApptainerConfig(config=load_config()), find_places()
    ca_bundle = arguments.ca_bundle or settings.ca_bundle
    with show_progress() as on_progress:
        on_progress("Looking for an engine")
        if settings.engine_path:
            engine = get_engine(settings.engine_path, places=places)
        else:
            engine = install_engine(places, on_progress=on_progress)
        on_progress("Looking for the starter image")
        image = build_starter_image(
            engine,
            places,
            on_progress=on_progress,
            ca_bundle=Path(ca_bundle).expanduser() if ca_bundle else None,
            is_forced=arguments.rebuild,
        )
        on_progress("Trying the image")
        spec = ContainerSpec(image=str(image))
        probe = check_kernel(engine, spec, places, settings)
    folder = add_kernelspec(
        KERNEL,
        spec,
        display_name=DISPLAY_NAME,
        replace=True,
        debugger=bool(probe and probe.has_debugger),
        curve=bool(probe and probe.has_curve),
    )
    print(folder)
    print_note(
        f"""
{engine.flavour} {engine.version_text}: {engine.path}
image: {image}

What next:
  jupyter lab                            choose "{DISPLAY_NAME}"
  jupyter apptainer kernel check {KERNEL}
  jupyter apptainer kernel add NAME IMAGE        a kernel of an image of your own
  jupyter apptainer doctor                       what else this machine can do"""
    )
    return 0
