import errno
import os

import pytest

from edgewright_operator.gateway import whole_file
from edgewright_operator.gateway.blobs import Blobs
from edgewright_operator.gateway.index import Index


def test_replaces_the_former_file(tmp_path):
    target = tmp_path / "new" / "file"
    whole_file.write(target, b"one")
    whole_file.write(target, b"two")
    assert target.read_bytes() == b"two"
    assert [item.name for item in target.parent.iterdir()] == ["file"]


def test_a_full_disk_leaves_the_former_file_and_no_rest(tmp_path, monkeypatch):
    target = tmp_path / "file"
    whole_file.write(target, b"one")

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        whole_file.write(target, b"two")
    assert target.read_bytes() == b"one"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_a_damaged_list_of_a_release_does_not_keep_the_gateway_from_starting(tmp_path):
    index, blobs = Index(tmp_path / "index"), Blobs(tmp_path / "blobs")
    index.remember("sha256:" + "a" * 64, ["sha256:" + "b" * 64])
    (tmp_path / "index" / ("c" * 64)).write_bytes(b"\xff\xfe\x00 torn")
    index.sweep(blobs)
    assert index.holds("sha256:" + "a" * 64)
