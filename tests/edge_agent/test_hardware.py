from __future__ import annotations

import re

import pytest

from edgewright_agent import hardware

X86 = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 85
model name\t: Intel(R) Xeon(R) Gold
flags\t\t: fpu sse4_2 avx avx2 fma avx512f avx512_vnni

processor\t: 1
model\t\t: 99
"""
PI4 = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU part\t: 0xd08
"""
UNKNOWN_ARM = PI4.replace("0xd08", "0xabc").replace("asimd ", "asimd asimddp i8mm ")


def test_the_first_processor_speaks() -> None:
    assert hardware.parsed(X86)["model"] == "85"
    assert hardware.parsed("") == {}


@pytest.mark.parametrize(
    ("arch", "cpuinfo", "cores", "expected"),
    [
        ("amd64", X86, None, "amd64-6-85-avx2-avx512vnni"),
        ("amd64", X86, 1.5, "amd64-6-85-avx2-avx512vnni-q2"),
        ("arm64", PI4, None, "arm64-a72"),
        ("arm64", PI4, 0.25, "arm64-a72-q0.5"),
        ("arm64", UNKNOWN_ARM, None, "arm64-0x41-0xabc-asimddp-i8mm"),
        ("riscv64", "", None, "riscv64-0-0"),
    ],
)
def test_classes(arch: str, cpuinfo: str, cores: float | None, expected: str) -> None:
    assert hardware.hardware_class(arch, hardware.parsed(cpuinfo), cores) == expected


def test_a_class_always_fits_a_label() -> None:
    wild = {"cpu family": "6_é/ x" * 20, "model": "!"}
    found = hardware.hardware_class("Weird Arch", wild, 3.0)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", found)


@pytest.mark.parametrize(
    ("text", "cores"),
    [("max 100000\n", None), ("50000 100000\n", 0.5), ("200000 100000", 2.0), ("", None), ("1 0", None), ("x y", None)],
)
def test_quota_of_the_cgroup(text: str, cores: float | None) -> None:
    assert hardware.quota_cores(text) == cores


@pytest.mark.parametrize(("cores", "bucket"), [(None, ""), (0.1, "q0.5"), (0.5, "q0.5"), (0.51, "q1"), (2.2, "q3")])
def test_quota_buckets(cores: float | None, bucket: str) -> None:
    assert hardware.quota_bucket(cores) == bucket


def test_this_machine_and_an_override() -> None:
    here = hardware.measured(None)
    assert here.cores >= 1
    assert here.memory_bytes > 2**26
    assert hardware.measured("my-class").class_ == "my-class"
    assert set(here.flags) <= set(hardware.FLAGS)
