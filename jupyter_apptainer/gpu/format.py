"""Readings in words, for tables. "n/a" stands for what a device does not report."""

from __future__ import annotations

from .model import Device, GpuReport

NOT_KNOWN = "n/a"
_GIB = 1024**3
Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def describe_devices(report: GpuReport) -> Table:
    """Return headings and a row for each device."""
    headings = ("GPU", "UTIL", "MEMORY", "TEMP", "POWER", "CLOCK", "NAME")
    return headings, [_describe_device(device) for device in report.devices]


def describe_holders(report: GpuReport) -> Table:
    """Return headings and a row for each process of this user's, and one for all of the others' on a device."""
    labels = {device.uuid: device.label for device in report.devices}
    rows = [
        (
            labels[holder.device],
            str(holder.pid),
            format_bytes(holder.memory_bytes),
            format_percent(holder.utilisation_percent),
            holder.owner if holder.owner != "other" else holder.user or "other",
            holder.label,
        )
        for holder in report.holders
    ]
    rows += [
        (labels[others.device], "-", format_bytes(others.memory_bytes), "-", "others", f"{others.processes} processes")
        for others in report.others
    ]
    return ("GPU", "PID", "MEMORY", "UTIL", "OWNER", "NOTEBOOK OR PROGRAM"), sorted(rows, key=lambda row: row[0])


def format_bytes(number: int | None) -> str:
    """1.5 GiB."""
    return NOT_KNOWN if number is None else f"{number / _GIB:.1f} GiB"


def format_percent(number: int | None) -> str:
    """43 %."""
    return NOT_KNOWN if number is None else f"{number} %"


def format_memory(device: Device) -> str:
    """1.5 of 40.0 GiB."""
    if device.memory_total_bytes is None:
        return format_bytes(device.memory_used_bytes)
    used = NOT_KNOWN if device.memory_used_bytes is None else f"{device.memory_used_bytes / _GIB:.1f}"
    return f"{used} of {device.memory_total_bytes / _GIB:.1f} GiB"


def format_power(device: Device) -> str:
    """210 of 400 W."""
    if device.power_w is None:
        return NOT_KNOWN
    limit = "" if device.power_limit_w is None else f" of {device.power_limit_w:.0f}"
    return f"{device.power_w:.0f}{limit} W"


def format_temperature(device: Device) -> str:
    """61 °C."""
    return NOT_KNOWN if device.temperature_c is None else f"{device.temperature_c} °C"


def format_clock(device: Device) -> str:
    """1410 MHz."""
    return NOT_KNOWN if device.clock_mhz is None else f"{device.clock_mhz} MHz"


def _describe_device(device: Device) -> tuple[str, ...]:
    return (
        device.label,
        format_percent(device.utilisation_percent),
        format_memory(device),
        format_temperature(device),
        format_power(device),
        format_clock(device),
        device.name + (f": {device.problem}" if device.problem else ""),
    )
