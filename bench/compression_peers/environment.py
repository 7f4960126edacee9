"""Where the peers and ACSF1 come from: environments of their own, made once by uv and kept."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

NNCF: Final = ("nncf==3.4.0", "onnx>=1.21", "onnxruntime==1.32.0")
SKTIME: Final = "sktime==1.2.0"
INSTALL_SECONDS: Final = 600


class Unavailable(RuntimeError):
    """A peer or a data set that cannot be had here; the text says why."""


def nncf_python(cache: Path) -> Path:
    """The interpreter of an environment that holds NNCF.

    Raises:
        Unavailable: uv is missing, or the installation failed.
    """
    folder = cache / "nncf"
    python = folder / "bin" / "python"
    if not python.exists():
        _uv("venv", "--quiet", "--python", "3.11", str(folder))
        _uv("pip", "install", "--quiet", "--python", str(python), *NNCF)
    return python


def acsf1_folder(cache: Path) -> Path:
    """The folder with ACSF1_TRAIN.ts and ACSF1_TEST.ts, which sktime's wheel carries.

    Raises:
        Unavailable: uv is missing, or the installation failed.
    """
    target = cache / "sktime"
    folder = target / "sktime" / "datasets" / "data" / "ACSF1"
    if not folder.exists():
        _uv("pip", "install", "--quiet", "--no-deps", "--target", str(target), SKTIME)
    return folder


def _uv(*arguments: str) -> None:
    if (uv := shutil.which("uv")) is None:
        raise Unavailable("uv is not on PATH")
    try:
        told = subprocess.run([uv, *arguments], capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"uv {arguments[0]} took more than {INSTALL_SECONDS} s") from None
    if told.returncode:
        raise Unavailable(f"uv {' '.join(arguments[:2])}: {told.stderr.strip().splitlines()[-1]}")
