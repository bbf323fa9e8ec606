"""Builds of an image: the engine's own against ours, first and after a change of the last, a middle and the first step.

`python -m benchmarks.builds` installs Python packages, fetched before, into the image of the starter kernel, a step for each. The
engine's own build runs everything each time, so that it is measured once a round. Then a kernel is started in either image: by the
kernel.json that people paste, which reads nothing but the image, and by ours, which reads less of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.locate import EngineInfo, get_engine
from jupyter_apptainer.engine.options import build_image_build
from jupyter_apptainer.engine.runner import Runner
from jupyter_apptainer.images.build import BuildOptions, build_image
from jupyter_apptainer.images.recipes.recipe import load_definition
from jupyter_apptainer.images.starter import remove_build_folder
from jupyter_apptainer.places import find_places

from .copies import keep_copies, unpack, use_copies
from .machine import count_cpus, describe_image, forget_pages
from .options import add_image, add_machine, add_rounds, build_parser, refuse_disturbances, say
from .twin import read_image_versions
from .ways import Way, build_recipe_way, build_way, start

PACKAGES = ("sympy", "pandas", "scipy", "networkx")
_PLATFORMS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")
_STARTS = 5


@dataclass(frozen=True)
class Row:
    """What ours takes, as a share of the engine's own way, and what it should take at most."""

    title: str
    plain_s: float
    ours_s: float
    limit: float | None

    def render(self) -> str:
        """Return a line of the table."""
        ratio = self.ours_s / self.plain_s
        target = "" if self.limit is None else f"≤ {self.limit:g} {'✓' if ratio <= self.limit else '✗'}"
        return f"| {self.title} | {self.plain_s:.1f} s | {self.ours_s:.1f} s | {ratio:.2f} | {target} |"


class Bench:
    """One folder with a recipe, and the two ways to build it."""

    def __init__(self, folder: Path, engine: EngineInfo, image: Path, packages: Sequence[str]) -> None:
        self._folder = folder
        self._engine = engine
        self._image = image
        self._packages = packages
        self._places = find_places({**os.environ, "JUPYTER_APPTAINER_HOME": str(folder / "home")})

    def write(self, changed: int | None = None, word: str = "") -> Path:
        """Write the recipe; `word` is what makes a step another one."""
        lines = ["Bootstrap: localimage", f"From: {self._image}", "%files", "    wheels /opt/wheels", "%post"]
        for number, name in enumerate(self._packages):
            note = f"  # {word}" if number == changed else ""
            lines += [f"    python3 -m pip install -q --no-index --find-links /opt/wheels {name}{note}", "    # layer"]
        path = self._folder / "recipe.def"
        path.write_text("\n".join([*lines, "    true", ""]))
        return path

    def build_plain(self, target: Path) -> float:
        """Build as people do, and return the seconds that it takes."""
        temporary = self._folder / "tmp"
        temporary.mkdir(exist_ok=True)
        env = build_engine_environment(os.environ) | {"APPTAINER_TMPDIR": str(temporary)}
        command = build_image_build(self._engine, str(target), str(self.write()), env, is_forced=True)
        began = time.monotonic()
        Runner().run(replace(command, cwd=str(self._folder)))
        return time.monotonic() - began

    def build_ours(self, target: Path, recipe: Path, *, is_first: bool = False) -> float:
        """Build with layers, and return the seconds that it takes."""
        began = time.monotonic()
        options = BuildOptions(is_forced=True, uses_layers=not is_first)
        build_image(self._engine, self._places, load_definition(recipe, folder=self._folder), target, options)
        return time.monotonic() - began

    def fetch(self, python: str) -> None:
        """Fetch the packages for the image's Python."""
        machine = os.uname().machine
        platforms = [word for name in _PLATFORMS for word in ("--platform", f"{name}_{machine}")]
        argv = [sys.executable, "-m", "pip", "download", "-q", "--only-binary", ":all:", "--python-version", python]
        subprocess.run([*argv, *platforms, "-d", str(self._folder / "wheels"), *self._packages], check=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print a table. Returns the exit status: 0 measured, 1 not measured."""
    options = _parse_arguments(argv)
    refuse_disturbances(is_forced=options.force)
    engine = get_engine(options.engine)
    python = read_image_versions(engine, str(options.image), "python3").minor
    folder = Path(tempfile.mkdtemp(prefix="jpa-builds-", dir="/var/tmp"))
    try:
        bench = Bench(folder, engine, options.image, PACKAGES)
        bench.fetch(python)
        samples = measure_builds(bench, folder, options.rounds)
        with keep_copies(folder) as settings:
            copy = use_copies(build_way(folder, engine, "copy start", {"image": str(folder / "ours.sif")}), settings)
            unpack(engine, str(folder / "ours.sif"), settings)
            samples |= asyncio.run(measure_starts(engine, folder, copy))
    finally:
        remove_build_folder(folder)
    print("| what | `apptainer build` | ours | ratio | target |\n|---|---|---|---|---|")
    print("\n".join(row.render() for row in build_rows(samples)))
    print(f"\nMedians of {options.rounds}, {count_cpus()} processors, base: {describe_image(options.image)}.")
    if options.json:
        options.json.write_text(json.dumps(samples, indent=1), encoding="utf-8")
    return 0


def measure_builds(bench: Bench, folder: Path, rounds: int) -> dict[str, list[float]]:
    """Return seconds by what is built."""
    last = len(PACKAGES) - 1
    found: dict[str, list[float]] = {name: [] for name in ("plain", "first", "last", "middle", "changed first")}
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        found["plain"].append(bench.build_plain(folder / "plain.sif"))
        found["first"].append(bench.build_ours(folder / "ours.sif", bench.write(), is_first=True))
        for name, changed in (("last", last), ("middle", last // 2), ("changed first", 0)):
            recipe = bench.write(changed, f"{name} {number}")
            found[name].append(bench.build_ours(folder / "changed.sif", recipe))
    return found


async def measure_starts(engine: EngineInfo, folder: Path, copy: Way) -> dict[str, list[float]]:
    """Return seconds from the call to the first answer of a kernel, in either image. The first round is for caches, and does not count.

    "plain start": as it is done without this project, `apptainer exec` in what `apptainer build` has made. "exec start": that in our image.
    "gzip start": our start in the engine's image.
    "copy start": our start in the unpacked copy of our image. "cold": the image is not in Linux' page cache.
    """
    plain, ours = str(folder / "plain.sif"), str(folder / "ours.sif")
    ways = {
        "plain start": build_recipe_way(folder, engine, "plain-start", plain),
        "exec start": build_recipe_way(folder, engine, "exec-start", ours),
        "gzip start": build_way(folder, engine, "gzip start", {"image": plain}),
        "start": build_way(folder, engine, "start", {"image": ours}),
        "copy start": copy,
    }
    found: dict[str, list[float]] = {}
    for number in range(_STARTS + 1):
        for prefix in ("", "cold "):
            for name, way in ways.items():
                if prefix and way is copy:
                    # There is no such copy of an image that was not read before.
                    continue
                if prefix:
                    forget_pages(ours if name in ("start", "exec start") else plain)
                began = time.monotonic()
                kernel = await start(way)
                if number:
                    found.setdefault(prefix + name, []).append(time.monotonic() - began)
                await kernel.end()
    return found


def build_rows(samples: Mapping[str, Sequence[float]]) -> list[Row]:
    """Return the medians, ours beside the engine's own."""
    median = {name: statistics.median(values) for name, values in samples.items()}
    rows = [
        Row(title, median["plain"], median[name], limit)
        for name, title, limit in (
            ("first", "first build", 0.6),
            ("last", "last step changed", 0.15),
            ("middle", "a middle step changed", None),
            ("changed first", "first step changed", None),
        )
    ]
    for prefix, title in (("", "start of a kernel"), ("cold ", "start of a kernel, the image not in the page cache")):
        plain, executed, gzip, ours = (
            median[f"{prefix}{name}"] for name in ("plain start", "exec start", "gzip start", "start")
        )
        rows.append(Row(f"{title}, with `apptainer exec` in both images", plain, executed, 0.7))
        rows.append(Row("the same, with `apptainer exec` there and our start here", plain, ours, 0.7))
        rows.append(Row("the same, with our start in both images", gzip, ours, None))
    title = "our start in both images, of which ours is unpacked (`unpacked_images`)"
    return [*rows, Row(title, median["gzip start"], median["copy start"], None)]


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = build_parser("benchmarks.builds", __doc__)
    add_image(parser, "the base, with a Python")
    add_rounds(parser, 3)
    add_machine(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
