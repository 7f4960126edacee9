"""At start: what makes this node's latency comparable with another's. Only `measured` reads."""

import math
import os
import platform
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

from edgewright_contract.edgenode import Hardware

FLAGS: Final = (
    *("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)
"""SIMD flags that change which kernels ONNX Runtime takes."""

_ARM_PARTS: Final = {
    ("0x41", "0xd03"): "a53",
    ("0x41", "0xd04"): "a35",
    ("0x41", "0xd05"): "a55",
    ("0x41", "0xd07"): "a57",
    ("0x41", "0xd08"): "a72",
    ("0x41", "0xd09"): "a73",
    ("0x41", "0xd0b"): "a76",
    ("0x41", "0xd0c"): "n1",
    ("0x41", "0xd41"): "a78",
}
_ARCHES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


def parsed(cpuinfo: str) -> dict[str, str]:
    """The first processor of /proc/cpuinfo: key → value."""
    found: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            found.setdefault(key.strip(), value.strip())
    return found


def quota_cores(cpu_max: str) -> float | None:
    """Cores that the cgroup grants (`cpu.max`), or none without a limit."""
    match = re.fullmatch(r"(\d+) (\d+)\s*", cpu_max)
    return int(match[1]) / int(match[2]) if match and int(match[2]) else None


def quota_bucket(cores: float | None) -> str:
    """The quota rounded up to half, one or whole cores: `q0.5`, `q1`, `q2` …; empty without a limit."""
    if cores is None:
        return ""
    return "q0.5" if cores <= 0.5 else f"q{math.ceil(cores)}"


def simd_flags(cpu: Mapping[str, str]) -> list[str]:
    """The flags that matter, in a fixed order."""
    present = set((cpu.get("flags") or cpu.get("Features") or "").split())
    return [flag for flag in FLAGS if flag in present]


def hardware_class(arch: str, cpu: Mapping[str, str], cores: float | None) -> str:
    """A short name such as `arm64-a72` or `amd64-6-85-avx2-q1`, fit for a label value."""
    wanted: tuple[str, ...]
    if "CPU part" in cpu:
        implementer, part = cpu.get("CPU implementer", "0x0"), cpu["CPU part"]
        kind = _ARM_PARTS.get((implementer, part), f"{implementer}-{part}")
        wanted = ("asimddp", "i8mm", "sve")
    else:
        kind = f"{cpu.get('cpu family', '0')}-{cpu.get('model', '0')}"
        wanted = ("avx2", "avx512_vnni", "avx_vnni", "amx_int8")
    flags = [flag for flag in wanted if flag in simd_flags(cpu)]
    parts = [arch, kind, *(flag.replace("_", "") for flag in flags), quota_bucket(cores)]
    return re.sub(r"[^a-z0-9.-]", "-", "-".join(part for part in parts if part).lower())[:63].strip("-.")


def measured(override: str | None) -> Hardware:
    """This machine, with `override` as its class if a label or setting gives one."""
    cpu = parsed(_read(Path("/proc/cpuinfo")))
    arch = _ARCHES.get(platform.machine(), platform.machine())
    quota = quota_cores(_read(Path("/sys/fs/cgroup/cpu.max")))
    return Hardware(
        class_=override or hardware_class(arch, cpu, quota),
        arch=arch[:16],
        cpu=(cpu.get("model name") or cpu.get("CPU part") or platform.machine())[:128],
        flags=simd_flags(cpu),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        agent_version=metadata.version("edgewright-agent"),
        runtime_version=metadata.version("onnxruntime"),
    )


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
