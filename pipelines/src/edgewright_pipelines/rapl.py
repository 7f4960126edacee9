"""Beside latency: joules of the processor package from the kernel's RAPL counter, where the machine lets us read it."""

from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
MICRO = 1e-6


@dataclass(frozen=True, slots=True)
class Counter:
    """Energy since some moment in the past; it runs over at `most` joules."""

    files: tuple[Path, ...]
    most: float

    def read(self) -> float:
        """Joules, summed over the packages."""
        return sum(int(file.read_text()) for file in self.files) * MICRO

    def since(self, before: float) -> float:
        """Joules since a `read` gave `before`; one run-over in between is seen and counted."""
        spent = self.read() - before
        return spent if spent >= 0 else spent + self.most


def found(powercap: Path = POWERCAP) -> Counter | None:
    """The counter of all packages; None where the kernel has none or does not let us read it."""
    packages = sorted(powercap.glob("intel-rapl:[0-9]")) if powercap.is_dir() else []
    try:
        most = [int((package / "max_energy_range_uj").read_text()) * MICRO for package in packages]
        counter = Counter(tuple(package / "energy_uj" for package in packages), most[0] if most else 0.0)
        counter.read()
    except (OSError, ValueError):
        return None
    return counter if packages else None
