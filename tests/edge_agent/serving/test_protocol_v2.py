"""The request parser against odd input: it gives windows or a sentence, never anything else."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright_agent.serving.protocol_v2 import BadRequest, parse

SECONDS = 16
NUMBERS = np.arange(SECONDS, dtype="<f4")


def binary(rows: int = 1) -> tuple[bytes, str]:
    data = np.tile(NUMBERS, rows).tobytes()
    tensor = {"name": "watts", "datatype": "FP32", "shape": [rows, 1, SECONDS]}
    tensor["parameters"] = {"binary_data_size": len(data)}
    text = json.dumps({"id": "q", "inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return text + data, str(len(text))


def attempt(body: bytes, header: str | None) -> None:
    """Parse; whatever comes out must be whole windows of finite numbers, or one sentence."""
    refused = ""
    try:
        asked = parse(body, header, SECONDS)
    except BadRequest as error:
        refused = str(error)
    if refused:
        assert refused.endswith(".")
        assert len(refused) < 700
        return
    assert asked.watts.dtype == np.float32
    assert asked.watts.shape[1:] == (1, SECONDS)
    assert asked.watts.flags.c_contiguous
    assert asked.watts.flags.aligned
    assert np.isfinite(asked.watts).all()


def mutate(random: np.random.Generator, body: bytes, header: str) -> tuple[bytes, str | None]:
    """One to four random changes of a good request: bytes, cuts, repeats, lengths."""
    data = bytearray(body)
    for _ in range(int(random.integers(1, 5))):
        place = int(random.integers(0, len(data) + 1))
        match int(random.integers(0, 6)):
            case 0 if data:
                data[place % len(data)] = int(random.integers(0, 256))
            case 1:
                del data[place:]
            case 2:
                data[place:place] = random.bytes(int(random.integers(0, 9)))
            case 3:
                data[place:place] = data[: int(random.integers(0, 40))]
            case 4:
                header = str(int(random.integers(-2, len(data) + 3)))
            case 5:
                header = ["", "9" * 12, "1e3", "0x10", header + "0"][int(random.integers(0, 5))]
    return bytes(data), header if random.integers(0, 8) else None


def fuzz(count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    seeds = [binary(1), binary(3)]
    text = json.dumps({"inputs": [{"name": "watts", "datatype": "FP32", "shape": [1, 1, SECONDS], "data": [1] * 16}]})
    seeds.append((text.encode(), str(len(text))))
    for index in range(count):
        attempt(*mutate(random, *seeds[index % 3]))


def test_mutants_are_read_or_refused():
    fuzz(20_000, 1)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_million_mutants_are_read_or_refused():
    fuzz(1_000_000, 2)


@given(st.binary(max_size=300), st.none() | st.text(max_size=12) | st.integers(-1, 400).map(str))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_or_refused(body, header):
    attempt(body, header)


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["name", "x", "binary_data"]), inner),
    max_leaves=12,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "id": _values,
            "outputs": _values,
            "parameters": _values,
            "inputs": st.lists(
                st.fixed_dictionaries(
                    {
                        "name": st.just("watts") | _values,
                        "datatype": st.just("FP32"),
                        "shape": st.just([1, 1, SECONDS]),
                    },
                    optional={"data": st.lists(st.floats(width=32), min_size=16, max_size=16) | _values},
                ),
                max_size=2,
            ),
        },
    )
)
@settings(max_examples=300, deadline=None)
def test_any_json_is_read_or_refused(value):
    attempt(json.dumps(value).encode(), None)


@pytest.mark.parametrize("offset", range(4))
def test_numbers_survive_whatever_their_alignment(offset):
    body, header = binary(2)
    padded = b" " * offset + body
    asked = parse(padded, str(int(header) + offset), SECONDS)
    np.testing.assert_array_equal(asked.watts.reshape(2, SECONDS), np.tile(NUMBERS, (2, 1)))
    assert (asked.id, asked.binary_output) == ("q", True)
