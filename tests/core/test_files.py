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


def named(target, machine, process):
    """Return the name of a temporary of that machine and process; "" stands for this machine."""
    with beside(target) as ours:
        here = ours.name.removeprefix(f".{target.name}-")[:8]
    return target.with_name(f".{target.name}-{machine or here}{process:08x}0123abcd.tmp")


DEAD = 0x7FFFFFF0
"""No process has this number: Linux counts to 4 million."""


def test_what_a_killed_write_of_the_same_target_left_is_cleared_and_nothing_else(tmp_path):
    dead, folder = (named(tmp_path / name, "", DEAD) for name in ("a.pt", "out"))
    folder.mkdir()
    (folder / "model.pt").write_text("half")
    kept = [".a.pt-notes.tmp", named(tmp_path / "b.pt", "", DEAD).name, dead.name[1:]]
    for name in (dead.name, *kept):
        (tmp_path / name).write_text("half")
    for target in ("a.pt", "out"):
        with beside(tmp_path / target):
            pass
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(kept)


def test_what_another_process_is_still_writing_stays(tmp_path):
    target = tmp_path / "out.pt"
    alive = named(target, "", os.getppid())
    alive.write_text("half")
    with beside(target) as ours:
        ours.write_text("whole")
        with beside(target) as other:  # a second writer of the same target, in this process
            assert ours.exists() and other != ours
    assert alive.read_text() == "half"


def test_what_a_process_of_another_machine_writes_stays_for_a_day(tmp_path):
    target = tmp_path / "out.pt"
    fresh, old = named(target, "00c0ffee", DEAD), named(target, "00c0ffef", DEAD)
    for file in (fresh, old):
        file.write_text("half")
    os.utime(old, (0, old.stat().st_mtime - 2 * 86_400))
    with beside(target):
        pass
    assert fresh.exists() and not old.exists()
