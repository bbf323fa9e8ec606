"""The command: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

from jupyter_apptainer.engine.locate import EngineInfo, get_engine
from jupyter_apptainer.errors import ApptainerError
from jupyter_apptainer.kernels.spec import parse_container_spec, resolve_paths
from jupyter_apptainer.places import find_places

from .machine import count_cpus, describe_image
from .options import add_machine, add_rounds, build_parser, refuse_disturbances, say
from .report import Facts, build_rows, render_json, render_markdown, render_table, write_readme
from .rounds import run_rounds
from .timeline import make_kinds, render_page, render_timelines, run_timelines
from .twin import Twin, Versions, find_bare_python, make_twin, read_image_versions
from .ways import make_ways

STARTER_KERNEL = "apptainer-starter"
README = Path(__file__).resolve().parent.parent / "README.md"
PAGE = README.parent / "docs" / "explanation" / "where-the-time-goes.md"


@dataclass(frozen=True)
class Subject:
    """What is measured: a container configuration with absolute paths, and its parts."""

    config: dict[str, object]
    image: str
    python: str


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and report. Returns the exit status: 0 measured, 1 not measured, 2 wrong usage."""
    options = _parse_arguments(argv)
    logging.basicConfig(level=logging.ERROR)
    disturbances = refuse_disturbances(is_forced=options.force)
    try:
        engine = get_engine(options.engine)
        subject = _find_subject(options.image)
        wanted = read_image_versions(engine, subject.image, subject.python)
    except ApptainerError as error:
        say(error.render())
        return 1
    say(f"local counterpart of {Path(subject.image).name}: Python {wanted.minor}")
    twin = make_twin(wanted, find_places().cache)
    if options.timeline:
        _measure_timelines(options, engine, subject, twin, is_quiet=not disturbances)
        return 0
    facts = _collect_facts(engine, subject, wanted, twin, options.rounds, is_quiet=not disturbances)
    _measure(options, engine, subject, twin, facts)
    return 0


def _measure(options: argparse.Namespace, engine: EngineInfo, subject: Subject, twin: Twin, facts: Facts) -> None:
    with tempfile.TemporaryDirectory(prefix="jpa-benchmarks-") as folder:
        bare = find_bare_python(engine, subject.image, subject.python)
        ways = make_ways(Path(folder), engine, subject.config, subject.image, twin.python, bare)
        samples = asyncio.run(run_rounds(ways, options.rounds, say))
    rows = build_rows(samples)
    print(render_table(rows, facts))
    if options.json:
        options.json.write_text(json.dumps(render_json(samples, rows, facts), indent=1), encoding="utf-8")
    if options.write_readme:
        write_readme(options.readme, render_markdown(rows, facts))


def _measure_timelines(
    options: argparse.Namespace, engine: EngineInfo, subject: Subject, twin: Twin, *, is_quiet: bool
) -> None:
    with make_kinds(engine, subject.image, twin.python, say) as kinds:
        found = asyncio.run(run_timelines(kinds, options.rounds, say))
    print(render_timelines(found))
    if options.write_readme:
        machine = f"{count_cpus()} processors{'' if is_quiet else ', busy with other things too'}"
        facts = f"{datetime.date.today().isoformat()}, {machine}, {engine.flavour} {engine.version_text}; medians of {options.rounds}."
        write_readme(PAGE if options.readme == README else options.readme, render_page(found, facts))
    if options.json:
        marks = {title: [dict(timeline.marks) for timeline in timelines] for title, timelines in found.items()}
        options.json.write_text(json.dumps(marks, indent=1), encoding="utf-8")


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = build_parser("benchmarks", __doc__)
    parser.add_argument("--image", type=Path, help=f"a SIF or sandbox; default: the one of the kernel {STARTER_KERNEL}")
    add_rounds(parser)
    add_machine(parser)
    parser.add_argument(
        "--timeline",
        action="store_true",
        help="show where the time of a start goes, for kinds of images and containers",
    )
    parser.add_argument(
        "--write-readme",
        action="store_true",
        help="renew the table in README.md; with --timeline the one in docs/explanation/where-the-time-goes.md",
    )
    parser.add_argument("--readme", type=Path, default=README, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def _find_subject(image: Path | None) -> Subject:
    config: dict[str, object] = {"image": str(image)}
    base = Path.cwd()
    if image is None:
        try:
            kernelspec = KernelSpecManager().get_kernel_spec(STARTER_KERNEL)
        except NoSuchKernel:
            raise SystemExit(
                f"there is no kernel {STARTER_KERNEL}: run `jupyter apptainer quickstart`, or use --image"
            ) from None
        config = kernelspec.metadata["kernel_provisioner"]["config"]
        base = Path(kernelspec.resource_dir)
    spec = resolve_paths(parse_container_spec(config), base, os.environ)
    return Subject({**config, "image": spec.image}, spec.image, spec.command[0])


def _collect_facts(
    engine: EngineInfo, subject: Subject, wanted: Versions, twin: Twin, rounds: int, *, is_quiet: bool
) -> Facts:
    return Facts(
        cpus=count_cpus(),
        python=wanted.python,
        ipykernel=wanted.packages.get("ipykernel", "none"),
        engine=f"{engine.flavour} {engine.version_text}",
        image=describe_image(Path(subject.image)),
        date=datetime.date.today().isoformat(),
        rounds=rounds,
        is_quiet=is_quiet,
        differences=tuple(twin.versions.name_differences(wanted)),
    )


if __name__ == "__main__":
    sys.exit(main())
