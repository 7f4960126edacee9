import os
import re
from pathlib import PurePosixPath

import numpy as np
import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright_pipelines.data import cache as caching
from edgewright_pipelines.data.location import LocationError, locate
from edgewright_pipelines.data.names import NameProblem, place_of
from edgewright_pipelines.data.parse import FileProblem, decompress, hold, parse
from edgewright_pipelines.data.traces import DataError, Trace, of_subsets, read


def row(second, watts, date="28/11/2011", separator=";"):
    clock = f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
    return f"{date} {clock}{separator}{watts}{separator}{watts}"


def text(*readings, end="\n", **form):
    return "".join(row(second, watts, **form) + end for second, watts in readings).encode()


def busy(seed, **form):
    """A day with enough changes that equal ones are copies and not chance."""
    dice = np.random.default_rng(seed)
    return text(*((second, int(dice.integers(0, 2000))) for second in range(0, 86_400, 30)), **form)


@pytest.fixture
def folder(tmp_path):
    """A data folder and a function that puts files into it."""

    class Folder:
        path = tmp_path / "data"

        def put(self, name: str, content: bytes) -> None:
            file = self.path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(zstd.compress(content) if name.endswith(".zst") else content)

    return Folder()


# One file


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("separator", [";", ",", "; "])
def test_separators_and_line_ends(separator, end):
    day = parse(text((0, 5), (1, 7), separator=separator, end=end))
    assert day.watts[:2].tolist() == [5, 7]
    assert day.date == "2011-11-28"


def test_quoted_times():
    assert parse(b'"28/11/2011 00:00:00",9,9\r\n').watts[0] == 9


def test_a_value_is_held_for_sixty_seconds_and_then_zero():
    day = parse(text((10, 5), (200, 7)))
    assert day.watts[9] == 0
    assert set(day.watts[10:71].tolist()) == {5}
    assert day.watts[71] == 0
    assert day.watts[199] == 0
    assert day.watts[260] == 7
    assert day.watts[261] == 0
    assert day.held_seconds == 120
    assert day.gap_seconds == 86_400 - 122


def test_backward_and_repeated_rows_are_mended_and_counted():
    day = parse(text((5, 50), (6, 60), (6, 61), (3, 30), (7, 70)))
    assert day.watts[3:8].tolist() == [30, 30, 50, 61, 70]
    assert day.unsorted_rows == 1
    assert day.repeated_rows == 1


def test_rows_of_another_day_are_left_out():
    day = parse(text((0, 1), (1, 1), (2, 1)) + text((5, 900), date="29/11/2011"))
    assert day.date == "2011-11-28"
    assert day.foreign_rows == 1
    assert day.watts.max() == 1


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.integers(0, 86_399), st.integers(0, 65_535), min_size=1, max_size=50))
def test_hold_against_the_plain_loop(readings):
    known = np.array(sorted(readings), dtype=np.int64)
    values = np.array([readings[second] for second in known], dtype=np.uint16)
    watts, held, gap = hold(known, values)
    expected, last = [], None
    for second in range(86_400):
        last = second if second in readings else last
        expected.append(readings[last] if last is not None and second - last <= 60 else 0)
    assert watts.tolist() == expected
    assert held + gap + len(readings) == 86_400


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 86_399), st.integers(0, 4000)), min_size=1, max_size=40), st.randoms())
def test_order_of_rows_does_not_matter_when_seconds_differ(readings, dice):
    readings = list(dict(readings).items())
    shuffled = readings.copy()
    dice.shuffle(shuffled)
    np.testing.assert_array_equal(parse(text(*readings)).watts, parse(text(*shuffled)).watts)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"\n  \n", "is empty"),
        (b"hello world\n", r"has 'hello world' in row 1"),
        (text((0, 1)) + b"28/11/2011 00:00:01;abc;2\n", r"has '28/11/2011 00:00:01;abc;2' in row 2"),
        (text((0, 1)) + b"28/11/2011 00:00:01;2.5;2\n", r"has '28/11/2011 00:00:01;2.5;2' in row 2"),
        (text((0, 1)) + b"28/11/2011 00:00:01;;2\n", r"in row 2"),
        (text((0, 1)) + b"28/11/2011 00:00", r"has '28/11/2011 00:00' in row 2"),
        (b"28/11/2011 00:00:01;2\n", r"in row 1, where 'dd/mm/yyyy HH:MM:SS;watts;watts' should stand"),
        (b"28/11/2011 00:00:01;2;3;4\n", r"in row 1"),
        (b"2011-11-28 00:00:01;2;3\n", r"in row 1"),
        (b"31/02/2011 00:00:01;2;3\n", "does not exist"),
        (b"28/11/2011 25:00:01;2;3\n", "does not exist"),
        (text((0, 70_000)), "has 70000 W in row 1"),
        (b"28/11/2011 00:00:01;-5;3\n", "has '28/11/2011 00:00:01;-5;3' in row 1|has -5 W in row 1"),
        (b"\x00\x01\x02\xff\xfe" * 100, "is binary, not text"),
        (b"\xff\xfe\xfa;1;2\n", "in row 1"),
        (b"time;watts;mean\n" + text((0, 1)), "has 'time;watts;mean' in row 1"),
        (b"x" * 10_000, r"has 'x+\.\.\.' in row 1"),
    ],
)
def test_malformed_text_is_refused_in_words(content, sentence):
    with pytest.raises(FileProblem, match=sentence):
        parse(content)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_a_day_or_words(content):
    for attempt in (lambda: parse(content), lambda: parse(text((0, 1)) + content), lambda: decompress(content)):
        try:
            attempt()
        except FileProblem as problem:
            assert len(str(problem)) > 10  # noqa: PT017 - both outcomes are fine, a third is not


def test_zstd_damage_is_refused_in_words():
    whole = zstd.compress(busy(1))
    assert decompress(whole + zstd.compress(b"more")) == busy(1) + b"more"
    with pytest.raises(FileProblem, match="ends in the middle"):
        decompress(whole[: len(whole) // 2])
    with pytest.raises(FileProblem, match="is not zstd data"):
        decompress(b"28/11/2011 00:00:01;2;3\n")
    with pytest.raises(FileProblem, match="is empty"):
        decompress(b"")
    with pytest.raises(FileProblem, match="more than 64 MB"):
        decompress(zstd.compress(bytes(70 << 20)))


# Names


@pytest.mark.parametrize(
    ("path", "device"),
    [
        ("complete/Toaster/dev_98ABD2_2011.11.28.csv.zst", "Toaster/98ABD2"),
        ("complete/Toaster/device_98abd2_2011.11.28.csv", "Toaster/98ABD2"),
        ("complete/Toaster/_98ABD2_2011.11.28.csv", "Toaster/98ABD2"),
        ("complete/Toaster/98ABD2_2011.11.28.csv", "Toaster/98ABD2"),
        ("complete/Toaster/dev_98ABD2_2011.11.28..csv", "Toaster/98ABD2"),
        ("incomplete/Toaster/dev_98ABD2_2011.11.28_cleaned_01.12.2011.csv", "Toaster/98ABD2"),
        ("complete/Monitor-TFT/Monitor_Denis_2011.12.29.csv", "Monitor-TFT/Monitor_Denis"),
        ("complete/Coffeemaker/dev_senseo_2011.12.29.csv", "Coffeemaker/Senseo_Coffee"),
        ("incomplete/LaundryDrier/dev_B7E2F8_2011.12.11.csv", "LaundryDryer/B7E2F8"),
        ("complete/Projector/_D3165A_2011.12.28.csv", "VideoProjector/D3165A"),
        ("synthetic/DVD_player/synthetic_dvd_10.csv", "DvdPlayer/synthetic"),
        ("synthetic/TV/synthetic_tv_1.csv", "TV-LCD/synthetic"),
    ],
)
def test_one_plug_and_one_class_whatever_the_spelling(path, device):
    place = place_of(PurePosixPath(path))
    assert place.device == device
    assert place.appliance == device.split("/")[0]
    assert f"{place.name}.csv" in path


@pytest.mark.parametrize("path", ["a.csv", "complete/a.csv", "australia/Lamp/a.csv", "complete/Lamp/deep/a.csv"])
def test_files_outside_the_layout_are_refused(path):
    with pytest.raises(NameProblem, match="outside the layout complete"):
        place_of(PurePosixPath(path))


# A folder


def test_read_names_what_it_skips_and_reads_the_rest(folder):
    folder.put("complete/Lamp/dev_AAAAAA_2011.11.28.csv.zst", busy(1))
    folder.put("complete/Lamp/dev_AAAAAA_2011.11.29.csv", busy(2, date="29/11/2011"))
    folder.put("complete/Lamp/dev_AAAAAA_2011.11.30.csv", b"letters")
    folder.put("complete/Lamp/dev_AAAAAA_2011.12.01.csv", b"")
    folder.put("australia/Lamp/dev_AAAAAA_2013.12.01.csv", busy(3))
    (folder.path / "complete/Lamp/dev_AAAAAA_2011.12.02.csv.zst").write_bytes(zstd.compress(busy(4))[:-20])
    (folder.path / "README.md").write_text("not a trace")
    told = []
    traces, report = read(folder.path, report=told.append)
    assert [trace.name for trace in traces] == [
        "complete/Lamp/dev_AAAAAA_2011.11.28",
        "complete/Lamp/dev_AAAAAA_2011.11.29",
    ]
    assert traces[0].watts.shape == (86_400,)
    assert traces[0].watts.dtype == np.uint16
    assert (report.files, report.read, report.traces) == (6, 2, 2)
    assert len(report.skipped) == 4
    assert "in row 1" in report.skipped["complete/Lamp/dev_AAAAAA_2011.11.30.csv"]
    assert "ends in the middle" in report.skipped["complete/Lamp/dev_AAAAAA_2011.12.02.csv.zst"]
    assert report.days == {"Lamp": 2}
    assert report.devices == {"Lamp": 1}
    assert (told[-1].done, told[-1].total) == (6, 6)


def test_a_trace_that_stands_twice_is_read_once(folder):
    folder.put("complete/Lamp/dev_AAAAAA_2011.11.28.csv", busy(1))
    folder.put("complete/Lamp/dev_AAAAAA_2011.11.28.csv.zst", busy(1))
    traces, report = read(folder.path)
    assert len(traces) == 1
    assert "the same trace uncompressed" in report.skipped["complete/Lamp/dev_AAAAAA_2011.11.28.csv.zst"]


def test_an_unreadable_file_is_skipped(folder, tmp_path):
    folder.put("complete/Lamp/dev_AAAAAA_2011.11.28.csv", busy(1))
    loop = folder.path / "complete/Lamp/dev_AAAAAA_2011.11.29.csv"  # root may read every file, but follows no loop
    loop.symlink_to(loop)
    _, report = read(folder.path, cache=tmp_path / "cache")
    assert "cannot be read" in report.skipped["complete/Lamp/dev_AAAAAA_2011.11.29.csv"]


def test_no_folder_and_no_files_are_sentences(tmp_path):
    with pytest.raises(DataError, match=r"There is no folder .*; run `edgewright data fetch "):
        read(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no \.csv\.zst or \.csv files; run `edgewright data fetch`"):
        read(tmp_path)


# Duplicates


def test_equal_days_are_dropped_and_flat_ones_are_not(folder):
    flat = text((0, 5), (86_399, 5))
    for number, content in enumerate([busy(1), busy(1), flat, flat], start=1):
        folder.put(f"complete/Lamp/dev_AAAAAA_2011.11.{number:02d}.csv", content)
    traces, report = read(folder.path)
    assert len(traces) == 3
    assert report.dropped == {
        "complete/Lamp/dev_AAAAAA_2011.11.02": "has the same readings as complete/Lamp/dev_AAAAAA_2011.11.01"
    }


def test_a_real_day_wins_over_its_synthetic_copy(folder):
    folder.put("complete/Zither/dev_AAAAAA_2011.11.28.csv", busy(1))
    folder.put("synthetic/Amp/synthetic_1.csv", busy(1))
    folder.put("synthetic/Amp/synthetic_2.csv", busy(1))
    traces, report = read(folder.path)
    assert [trace.appliance for trace in traces] == ["Zither"]
    assert len(report.dropped) == 2


def test_a_device_under_a_second_label_is_dropped_whole(folder):
    days = [f"{number:02d}" for number in range(1, 8)]
    for number in days:  # the series, complete but for the last two days
        if number <= "05":
            folder.put(f"complete/CRT/dev_B7BE29_2011.08.{number}.csv", busy(int(number), date=f"{number}/08/2011"))
            folder.put(
                f"complete/CRT/dev_B7BE29_2011.09.{number}.csv", busy(90 + int(number), date=f"{number}/09/2011")
            )
        folder.put(f"complete/TFT/dev_B7BE29_2011.08.{number}.csv", busy(int(number), date=f"{number}/08/2011"))
    folder.put("complete/TFT/dev_C00000_2011.08.01.csv", busy(50))
    traces, report = read(folder.path)
    assert len(report.dropped) == 7
    assert sum("most of whose days" in sentence for sentence in report.dropped.values()) == 2
    assert {trace.device for trace in traces} == {"CRT/B7BE29", "TFT/C00000"}


def test_one_equal_day_does_not_condemn_a_device(folder):
    for number in range(1, 6):
        folder.put(f"complete/CRT/dev_B7BE29_2011.08.0{number}.csv", busy(number, date=f"0{number}/08/2011"))
    folder.put("complete/TFT/dev_B7BE29_2011.08.01.csv", busy(1, date="01/08/2011"))
    folder.put("complete/TFT/dev_B7BE29_2011.08.09.csv", busy(60, date="09/08/2011"))
    _, report = read(folder.path)
    assert list(report.dropped) == ["complete/TFT/dev_B7BE29_2011.08.01"]


def test_doubtful_labels_are_told_and_kept(folder):
    folder.put("complete/Lamp/dev_AAAAAA_2011.11.28.csv", busy(1))
    folder.put("complete/Router/dev_AAAAAA_2011.11.28.csv", busy(2))
    near = busy(1).replace(b"28/11/2011 00:00:30;", b"28/11/2011 00:00:31;")
    folder.put("synthetic/Amp/synthetic_1.csv", near)
    traces, report = read(folder.path)
    assert len(traces) == 3
    assert "one plug on one day" in report.suspected["complete/Router/dev_AAAAAA_2011.11.28"]
    assert "mostly the same readings" in report.suspected["synthetic/Amp/synthetic_1"]


# The cache


def same(first, second):
    return [(t.name, t.device, t.gap_seconds, t.watts.tobytes()) for t in first] == [
        (t.name, t.device, t.gap_seconds, t.watts.tobytes()) for t in second
    ]


@pytest.fixture
def two_days(folder):
    folder.put("complete/Lamp/dev_AAAAAA_2011.11.28.csv", busy(1))
    folder.put("complete/Lamp/dev_AAAAAA_2011.11.29.csv", busy(2))
    folder.put("complete/Lamp/dev_AAAAAA_2011.11.30.csv", b"letters")
    return folder


def test_a_second_reading_comes_from_the_cache_and_is_equal(two_days, tmp_path):
    cache, told = tmp_path / "cache", []
    first, report = read(two_days.path, cache)
    second, again = read(two_days.path, cache, told.append)
    assert told == []  # nothing was parsed
    assert same(first, second)
    assert report == again
    assert not list(cache.glob(".writing-*"))


def test_a_changed_file_of_the_same_size_and_time_is_read_anew(two_days, tmp_path):
    file = two_days.path / "complete/Lamp/dev_AAAAAA_2011.11.28.csv"
    read(two_days.path, tmp_path / "cache")
    before = file.stat()
    file.write_bytes(file.read_bytes().replace(b"28/11/2011", b"27/11/2011"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert read(two_days.path, tmp_path / "cache")[0][0].date == "2011-11-27"


@pytest.mark.parametrize("damage", ["json", "npy", "bit", "missing"])
def test_a_damaged_cache_is_not_used(two_days, tmp_path, damage):
    cache = tmp_path / "cache"
    first, _ = read(two_days.path, cache)
    first = [Trace(t.name, t.appliance, t.device, t.subset, t.date, t.watts.copy(), t.gap_seconds) for t in first]
    (stored,) = cache.glob("*.npy")
    if damage == "json":
        stored.with_suffix(".json").write_text('{"crc32": 1, "traces": []')
    elif damage == "npy":
        stored.write_bytes(stored.read_bytes()[:1000])
    elif damage == "missing":
        stored.unlink()
    else:
        content = bytearray(stored.read_bytes())
        content[-1000] ^= 1
        stored.write_bytes(content)
    told = []
    second, _ = read(two_days.path, cache, told.append)
    assert told
    assert same(first, second)


def test_a_cache_that_cannot_be_written_is_a_note_only(two_days, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    traces, report = read(two_days.path, tmp_path / "cache")
    assert len(traces) == 2
    assert "the next run parses them again" in report.notes[0]


def test_old_caches_are_removed(two_days, tmp_path):
    for number in range(caching.KEPT + 2):
        two_days.put(f"complete/Lamp/dev_AAAAAA_2011.10.0{number}.csv", busy(10 + number))
        read(two_days.path, tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.npy"))) == caching.KEPT
    assert len(list((tmp_path / "cache").glob("*.json"))) == caching.KEPT


# Where the data is


def test_locate(tmp_path):
    assert locate({}, tmp_path) is None
    (tmp_path / "data/tracebase/complete").mkdir(parents=True)
    assert locate({}, tmp_path) == tmp_path / "data/tracebase"
    other = tmp_path / "other"
    (other / "synthetic").mkdir(parents=True)
    assert locate({"TRACEBASE_DIR": str(other)}, tmp_path) == other
    assert locate({"TRACEBASE_DIR": "other"}, tmp_path) == other
    assert locate({"TRACEBASE_DIR": "  "}, tmp_path) == tmp_path / "data/tracebase"
    with pytest.raises(LocationError, match=re.escape(f"TRACEBASE_DIR names {tmp_path / 'gone'}")):
        locate({"TRACEBASE_DIR": str(tmp_path / "gone")}, tmp_path)


def test_of_subsets_keeps_generated_ones():
    watts = np.zeros(86_400, dtype=np.uint16)
    traces = [Trace(s, "A", "A/a", s, "2024-01-01", watts, 0) for s in ("complete", "synthetic", "generated")]
    assert [trace.name for trace in of_subsets(traces, ["complete"])] == ["complete", "generated"]
