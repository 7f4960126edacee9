"""What verifying a release costs, beside OpenSSF model-signing in the same run (P12): warm, cold, import, packages.

Both check the same ECDSA P-256 bundle over the same folder with one file; ours verifies what model-signing signed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

MEGABYTE = 1_000_000
SIZES = (0.1, 1.0, 10.0)
OURS, PEER, BARE = "edgewright", "model-signing", "bare interpreter"
IMPORTS = {OURS: "import edgewright_contract.bundle", PEER: "import model_signing.verifying"}
DISTRIBUTIONS = {OURS: "edgewright-contract", PEER: "model-signing"}
VERIFYING = {
    OURS: """
import sys, hashlib, pathlib
from edgewright_contract import bundle, keys
folder, signature, public = map(pathlib.Path, sys.argv[1:])
key = keys.load_public(public.read_bytes())
manifest = bundle.verify(signature.read_bytes(), {keys.key_id(key): key})
for name, digest in manifest.files.items():
    with (folder / name).open("rb") as stream:
        assert "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest() == digest
""",
    PEER: """
import sys, pathlib, warnings
warnings.simplefilter("ignore")
from model_signing import verifying
folder, signature, public = map(pathlib.Path, sys.argv[1:])
verifying.Config().use_elliptic_key_verifier(public_key=public).verify(folder, signature)
""",
}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Examples: python bench/verify.py; python bench/verify.py --quick --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, about half a minute")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    found = measure(arguments.quick)
    _table(found)
    if arguments.quick:
        print("quick: 20 warm and 3 cold repetitions instead of 200 and 15", file=sys.stderr)
    if arguments.json:
        print(json.dumps(found, sort_keys=True))


def measure(quick: bool) -> dict[str, Any]:
    """Medians; milliseconds."""
    warm_count, cold_count = (20, 3) if quick else (200, 15)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        public = _keys(root)
        cases = {size: _signed(root, size) for size in SIZES}
        runs = {OURS: _ours(public), PEER: _theirs(public)}
        found: dict[str, Any] = {"warmMilliseconds": {}, "coldMilliseconds": {}, "importMilliseconds": {}}
        for size in SIZES:
            calls = {name: partial(verify, *cases[size]) for name, verify in runs.items()}
            for name, value in _medians(calls, warm_count).items():
                found["warmMilliseconds"].setdefault(name, {})[f"{size:g}"] = round(value, 3)
        print("warm done", file=sys.stderr)
        arguments = [str(path) for path in (*cases[1.0], public)]
        cold = _processes({name: [VERIFYING[name], *arguments] for name in runs}, cold_count)
        imported = _processes({name: [IMPORTS[name]] for name in runs}, cold_count)
    empty = imported[BARE]
    found["coldMilliseconds"] = {name: round(cold[name], 1) for name in runs}
    found["importMilliseconds"] = {name: round(imported[name] - empty, 1) for name in runs}
    found["packages"] = {name: len(_closure(DISTRIBUTIONS[name])) for name in runs}
    found["bareInterpreterMilliseconds"] = round(empty, 1)
    found["coldRatio"] = round(cold[PEER] / cold[OURS], 2)
    found["coldRatioWithoutInterpreter"] = round((cold[PEER] - cold[BARE]) / (cold[OURS] - cold[BARE]), 2)
    found["quick"] = quick
    return found


def _keys(root: Path) -> Path:
    from edgewright_contract import keys

    key = keys.generate()
    (root / "key.pem").write_bytes(keys.private_pem(key))
    (root / "key.pub").write_bytes(keys.public_pem(key.public_key()))
    return root / "key.pub"


def _signed(root: Path, megabytes: float) -> tuple[Path, Path]:
    """A folder with one file of random bytes, signed by model-signing; folder and bundle."""
    folder, signature = root / f"m{megabytes:g}", root / f"m{megabytes:g}.sig"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(os.urandom(int(megabytes * MEGABYTE)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from model_signing import signing

        signing.Config().use_elliptic_key_signer(private_key=root / "key.pem").sign(folder, signature)
    return folder, signature


def _ours(public: Path) -> Callable[[Path, Path], None]:
    import hashlib

    from edgewright_contract import bundle, keys

    key = keys.load_public(public.read_bytes())
    trusted = {keys.key_id(key): key}

    def verify(folder: Path, signature: Path) -> None:
        manifest = bundle.verify(signature.read_bytes(), trusted)
        for name, digest in manifest.files.items():
            with (folder / name).open("rb") as stream:
                if f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}" != digest:
                    raise ValueError(name)

    return verify


def _theirs(public: Path) -> Callable[[Path, Path], None]:
    from model_signing import verifying

    config = verifying.Config().use_elliptic_key_verifier(public_key=public)
    return lambda folder, signature: config.verify(folder, signature)


def _medians(calls: Mapping[str, Callable[[], object]], count: int) -> dict[str, float]:
    """Milliseconds of each, taken in turns, so that what else the machine does hits all alike."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(count + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if turn:  # the first one warms up
                taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) * 1000 for name, times in taken.items()}


def _processes(codes: Mapping[str, list[str]], count: int) -> dict[str, float]:
    """Fresh interpreters from start to end, one that does nothing among them."""
    commands = {name: [sys.executable, "-c", *rest] for name, rest in {**codes, BARE: ["pass"]}.items()}
    return _medians({name: partial(subprocess.run, command, check=True) for name, command in commands.items()}, count)


def _closure(name: str) -> set[str]:
    """The distributions that an installation brings, by their metadata, without extras."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    waiting = [name]
    while waiting:
        current = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if current in found:
            continue
        try:
            requirements = importlib.metadata.requires(current) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(current)
        for text in requirements:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found


def _table(found: dict[str, Any]) -> None:
    rows = [(f"warm {size:g} MB, ms", found["warmMilliseconds"], f"{size:g}") for size in SIZES]
    print(f"{'':24}{OURS:>14}{PEER:>16}")
    for title, values, key in rows:
        print(f"{title:24}{values[OURS][key]:>14.3f}{values[PEER][key]:>16.3f}")
    for title, key in (
        ("cold 1 MB, ms", "coldMilliseconds"),
        ("import, ms", "importMilliseconds"),
        ("packages", "packages"),
    ):
        print(f"{title:24}{found[key][OURS]:>14}{found[key][PEER]:>16}")
    print(f"cold ratio {found['coldRatio']} (without the bare interpreter: {found['coldRatioWithoutInterpreter']})")


if __name__ == "__main__":
    main()
