"""A file is there whole or not at all."""

import hashlib

import pytest

from pipeline.whole import checksum_of, whole, write_first, write_whole


def passing(point):
    """Pass every kill point."""


def test_written_whole_with_size_and_checksum(tmp_path):
    path = tmp_path / "deep" / "file.bin"
    assert write_whole(path, b"abc", passing) == (3, hashlib.sha256(b"abc").hexdigest())
    assert path.read_bytes() == b"abc" and checksum_of(path) == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize("point", ["write", "rename"])
def test_an_end_at_a_kill_point_leaves_nothing(tmp_path, point):
    def stop(reached):
        if reached == point:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "file.bin", b"abc", stop)
    assert list(tmp_path.iterdir()) == []


def test_an_older_file_stands_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="full"), whole(path, passing) as partial:
        partial.write_bytes(b"ne")
        raise OSError("disk full")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_of_two_that_write_first_the_first_stays(tmp_path):
    for content in (b"one", b"two"):
        write_first(tmp_path / "file.bin", content)
    assert (tmp_path / "file.bin").read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [tmp_path / "file.bin"]
