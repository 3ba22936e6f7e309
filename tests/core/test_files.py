import os

import pytest

from vqdoctor.core.files import beside


def test_what_is_written_takes_the_name_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "a [b].pt"
    with beside(target) as temporary:
        temporary.write_text("new")
        temporary.replace(target)
    assert [file.name for file in tmp_path.iterdir()] == [target.name] and target.read_text() == "new"


def test_an_error_leaves_the_target_as_it_was(tmp_path):
    target = tmp_path / "a.pt"
    target.write_text("old")
    with pytest.raises(ValueError), beside(target) as temporary:
        temporary.write_text("half")
        raise ValueError
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"] and target.read_text() == "old"


def test_what_a_killed_write_of_the_same_target_left_is_cleared_and_nothing_else(tmp_path):
    kept = [".a.pt-notes.tmp", ".b.pt-0123456789abcdef.tmp", "a.pt-0123456789abcdef.tmp"]
    for name in (".a.pt-0123456789abcdef.tmp", *kept):
        (tmp_path / name).write_text("half")
    with beside(tmp_path / "a.pt"):
        pass
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(kept)


def test_what_another_process_is_still_writing_stays(tmp_path):
    target = tmp_path / "out.pt"
    alive = tmp_path / f".out.pt-{os.getppid():08x}0123abcd.tmp"
    alive.write_text("half")
    with beside(target) as ours:
        ours.write_text("whole")
        with beside(target) as other:  # a second writer of the same target, in this process
            assert ours.exists() and other != ours
    assert alive.read_text() == "half"
