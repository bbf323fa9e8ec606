"""From samples to rows, and from rows to a table on the terminal, JSON, and the README. Pure but for `write_readme`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from .rounds import Samples
from .ways import WayName

BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"
Unit = Literal["s", "ms", "MB/s", "messages/s", "lines/s", "MB"]
_FACTORS: Mapping[Unit, float] = {"s": 1, "ms": 1000, "MB/s": 1, "messages/s": 1, "lines/s": 1, "MB": 1e-6}
HEADER = ("measure", "local", "container", "ratio", "target", "pasted recipe")


@dataclass(frozen=True)
class Target:
    """What is to be reached, of container against local; `limit` of a difference is in the measure's base unit."""

    kind: Literal["ratio at most", "ratio at least", "difference at most", "at most"]
    limit: float

    def is_met(self, local: float, container: float) -> bool:
        """Compare two medians."""
        if self.kind == "ratio at most":
            return container <= self.limit * local
        if self.kind == "ratio at least":
            return container >= self.limit * local
        return container <= self.limit + (local if self.kind == "difference at most" else 0)

    def describe(self, unit: Unit) -> str:
        """As it stands in the table."""
        if self.kind == "ratio at most":
            return f"≤ {self.limit:g}×"
        if self.kind == "ratio at least":
            return f"≥ {self.limit:g}×"
        if self.kind == "at most":
            return f"≤ {self.limit * _FACTORS[unit]:g} {unit}"
        return f"≤ local + {self.limit * _FACTORS[unit]:g} {unit}"


@dataclass(frozen=True)
class Measure:
    """Something that is measured: key in the samples, title in the table."""

    key: str
    title: str
    unit: Unit
    target: Target | None = None


MEASURES: tuple[Measure, ...] = (
    Measure("start", "Cold start, until the kernel answers", "s", Target("ratio at most", 2.2)),
    Measure("start_call", "  of it, until the start returns", "s"),
    Measure(
        "start_server", "  of it, processor time of the server's process", "ms", Target("difference at most", 0.02)
    ),
    Measure("first_result", "Cold start, until the first cell's result (nbclient)", "s"),
    Measure("restart", "Restart, until the kernel answers", "s", Target("ratio at most", 0.3)),
    Measure("restart_rest", "Restart 10 s after a start and later", "s"),
    Measure("interrupt", "Interrupt, until the cell is idle", "ms"),
    Measure("execute", "Round trip of a cell", "ms", Target("ratio at most", 1.05)),
    Measure("info", "Round trip of kernel_info", "ms"),
    Measure("one_display", "A cell that shows 1 MB, until it is idle", "ms"),
    Measure("payloads", "Output: displays of 1 MB", "MB/s", Target("ratio at least", 1.2)),
    Measure("small", "Output: small displays", "messages/s"),
    Measure("lines", "Output: printed lines", "lines/s"),
    Measure("shutdown", "Shutdown, until everything is gone", "s", Target("difference at most", 0.05)),
    Measure("memory", "Memory (proportional set size), right after a start", "MB", Target("difference at most", 25e6)),
    Measure("memory_kernel", "  of it, the kernel itself", "MB"),
    Measure("memory_engine", "  of it, the engine's processes and the fork server", "MB"),
    Measure("memory_helpers", "  of it, what mounts the image", "MB"),
    Measure("memory_rest", "Memory, from 10 s after a start on", "MB", Target("difference at most", 25e6)),
    Measure(
        "memory_further",
        "Memory that a further kernel adds (in a shared instance)",
        "MB",
        Target("difference at most", 5e6),
    ),
    Measure("import", "`import jupyter_apptainer`, against Python alone", "ms", Target("difference at most", 0.015)),
    Measure("help", "`jupyter apptainer --help`, against Python alone", "ms", Target("at most", 0.15)),
)
# Its "local" is the same image's own ipykernel.
LENT = Measure(
    "start_lent",
    "Cold start with an ipykernel that is lent, and (as local) with the image's own",
    "s",
    Target("ratio at most", 1.1),
)


@dataclass(frozen=True)
class Row:
    """One line of the table. is_met: None where there is no target."""

    key: str
    title: str
    cells: tuple[str, str, str, str, str]
    is_met: bool | None


@dataclass(frozen=True)
class Facts:
    """Where and with what was measured; nothing that names a machine or a person. is_quiet: nobody else used the processor."""

    cpus: int
    python: str
    ipykernel: str
    engine: str
    image: str
    date: str
    rounds: int
    is_quiet: bool
    differences: tuple[str, ...]

    def describe(self) -> str:
        """One line."""
        line = (
            f"{self.date}, {self.cpus} processors, {self.engine}, {self.image}, Python {self.python}, ipykernel {self.ipykernel}; "
            f"medians (least–most) of {self.rounds} interleaved rounds, the image in the page cache"
        )
        line += "" if self.is_quiet else "; the machine was busy with other things"
        line += f"; the local kernel differs: {', '.join(self.differences)}" if self.differences else ""
        return line + "."


def build_rows(samples: Samples) -> list[Row]:
    """Compute the table."""
    rows = [_build_row(measure, samples.values[measure.key]) for measure in MEASURES]
    starts = samples.values["start"]
    if "lent" in starts:
        at = [row.key for row in rows].index("restart")
        rows.insert(at, _build_row(LENT, {"local": starts["container"], "container": starts["lent"]}))
    at = [row.key for row in rows].index("interrupt") + 1
    return [*rows[:at], _build_interrupt_row(samples.interrupts_right), *rows[at:]]


def _build_row(measure: Measure, values: Mapping[WayName, Sequence[float]]) -> Row:
    local, container = statistics.median(values["local"]), statistics.median(values["container"])
    target = measure.target
    if target and target.kind == "difference at most":
        difference = (container - local) * _FACTORS[measure.unit]
        against = f"{difference:+.{_count_digits(measure.unit)}f} {measure.unit}"
    else:
        against = f"{container / local:.2f}×" if local else ""
    recipe = values.get("recipe")
    cells = (
        _format(values["local"], measure.unit),
        _format(values["container"], measure.unit),
        against,
        target.describe(measure.unit) if target else "",
        f"{_format(recipe, measure.unit)}, {statistics.median(recipe) / local:.2f}×" if recipe else "",
    )
    return Row(measure.key, measure.title, cells, target.is_met(local, container) if target else None)


def _build_interrupt_row(right: Mapping[WayName, Sequence[bool]]) -> Row:
    local, container = right["local"], right["container"]
    cells = (f"{sum(local)} of {len(local)}", f"{sum(container)} of {len(container)}", "", "all", "")
    return Row("interrupt_right", "Interrupt: once, and the state kept", cells, all(container))


def _format(values: Sequence[float], unit: Unit) -> str:
    factor, digits = _FACTORS[unit], _count_digits(unit)
    low, middle, high = (value * factor for value in (min(values), statistics.median(values), max(values)))
    return f"{middle:.{digits}f} {unit} ({low:.{digits}f}–{high:.{digits}f})"


def _count_digits(unit: Unit) -> int:
    return {"s": 2, "ms": 1}.get(unit, 0)


def render_table(rows: Sequence[Row], facts: Facts) -> str:
    """For a terminal. A target that was missed has a mark."""
    lines = [HEADER, *((row.title, *_mark(row)) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*table, "", facts.describe()])


def _mark(row: Row) -> tuple[str, ...]:
    local, container, ratio, target, recipe = row.cells
    return local, container, ratio, target + (" MISSED" if row.is_met is False else ""), recipe


def render_json(samples: Samples, rows: Sequence[Row], facts: Facts) -> dict[str, Any]:
    """Everything, with each value that was measured."""
    return {
        "facts": asdict(facts),
        "rows": [asdict(row) for row in rows],
        "samples": samples.values,
        "interrupts_right": samples.interrupts_right,
    }


def render_markdown(rows: Sequence[Row], facts: Facts) -> str:
    """For the README: the table and one line that says where it comes from."""
    lines = [f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|"]
    for row in rows:
        title = f"… {row.title.strip()}" if row.title.startswith(" ") else row.title
        local, container, ratio, target, recipe = row.cells
        target += " ✓" if row.is_met else " ✗" if row.is_met is False else ""
        lines.append(f"| {title} | {local} | {container} | {ratio} | {target.strip()} | {recipe} |")
    return "\n".join([*lines, "", facts.describe()])


def write_readme(path: Path, text: str) -> None:
    """Replace what stands between the two marks. Raises ValueError where they are missing."""
    content = path.read_text(encoding="utf-8")
    before, begin, rest = content.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path.name} has no place for the figures: {BEGIN} … {END}")
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
