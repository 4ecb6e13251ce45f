"""Files are there whole or not at all, and a folder belongs to one piece of work."""

import contextlib
import json
import os
import subprocess
import sys

import pytest

from jepa_mpc.errors import UserError
from jepa_mpc.files import (
    claimed,
    read_json,
    refuse_existing,
    refuse_foreign,
    require_new,
    whole,
    write_json,
    write_whole,
)


def test_a_failed_write_leaves_the_old_file_and_no_scratch(tmp_path):
    path = tmp_path / "a.json"
    write_whole(path, "old")
    with contextlib.suppress(ZeroDivisionError), whole(path) as scratch:
        scratch.write_text("half")
        scratch.write_text(str(1 / 0))
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_the_file_appears_only_at_the_end(tmp_path):
    path = tmp_path / "folder" / "a.txt"
    with whole(path) as scratch:
        scratch.write_text("all of it")
        assert not path.exists()
    assert path.read_text() == "all of it"
    assert path.stat().st_mode & 0o777 == (tmp_path / "folder").stat().st_mode & 0o666


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, call=call: (done.append(name), call(*args)))
    write_whole(tmp_path / "a.txt", "all of it")
    assert done == ["fsync", "replace"]


def test_what_a_killed_command_left_is_cleared_away_folders_too(tmp_path):
    (tmp_path / ".a.0123456789abcdef.unfinished").mkdir()
    (tmp_path / ".a.0123456789abcdef.unfinished/part").write_text("half")
    (tmp_path / ".b.0123456789abcdef.unfinished").write_text("half")
    with claimed(tmp_path, {}):
        assert not [*tmp_path.glob(".*.unfinished")]


def test_neighbours_of_like_names_are_not_touched(tmp_path):
    for name in ("thesis.unfinished", "thesis.json.unfinished", "thesis.h5"):
        (tmp_path / name).write_text("mine")
    write_json(tmp_path / "thesis.json", {})
    with claimed(tmp_path, {}):
        pass
    assert all((tmp_path / name).read_text() == "mine" for name in ("thesis.unfinished", "thesis.h5"))
    assert (tmp_path / "thesis.json.unfinished").read_text() == "mine"


@pytest.mark.parametrize("content", ["", "{", "\xff", "[" * 100_000])
def test_damaged_json_is_named_with_its_fix(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"a\.json is damaged \(.*\); make it again"):
        read_json(path, "make it again")
    with pytest.raises(UserError, match=r"there is no .*b\.json; make it"):
        read_json(tmp_path / "b.json", "make it")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(UserError, match=r"pipe\.json is not a file; make it"):
        read_json(tmp_path / "pipe.json", "make it")


def test_what_exists_or_cannot_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("")
    with pytest.raises(UserError, match="exists already"):
        refuse_existing(tmp_path / "a")
    for path in (tmp_path, tmp_path / "a" / "b.json"):
        with pytest.raises(UserError, match=r"--output .*"):
            require_new(path)
    require_new(tmp_path / "new" / "b.json")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="exists already"):
        refuse_existing(tmp_path / "link")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # to root, all may be written
    with pytest.raises(UserError, match="is not a folder that one may write to"):
        require_new(tmp_path / "new" / "b.json")


def test_a_folder_with_things_but_no_claim_is_another_s_unless_they_are_hidden(tmp_path):
    refuse_foreign(tmp_path / "new")
    (tmp_path / ".lock").touch()  # left by a process that was killed before it said what it was about
    refuse_foreign(tmp_path)
    (tmp_path / "thesis").touch()
    with pytest.raises(UserError, match="holds files that are none of ours"):
        refuse_foreign(tmp_path)
    (tmp_path / "settings.json").touch()
    refuse_foreign(tmp_path)


def test_other_settings_are_named_with_both_values(tmp_path):
    with claimed(tmp_path, {"steps": 3, "device": "cpu", "rate": 0.1}, free=("device",)):
        pass
    with claimed(tmp_path, {"steps": 3, "device": "cuda", "rate": 0.1}, free=("device",)):
        pass
    line = r"steps is 3 there and 4 now \(and 1 more\); choose another --output"
    with pytest.raises(UserError, match=line), claimed(tmp_path, {"steps": 4, "rate": 0.2}):
        pass
    assert json.loads((tmp_path / "settings.json").read_text()) == {"steps": 3, "rate": 0.1}
    with pytest.raises(UserError, match=r"rate is 0.1 there and None now; choose"), claimed(tmp_path, {"steps": 3}):
        pass


@pytest.mark.parametrize("content", ["", '{"steps":'])
def test_damaged_settings_are_written_again(tmp_path, content):
    (tmp_path / "settings.json").write_text(content)
    with claimed(tmp_path, {"steps": 3}):
        assert json.loads((tmp_path / "settings.json").read_text()) == {"steps": 3}


def test_a_second_process_is_told_who_is_at_work(tmp_path):
    script = f"""
from pathlib import Path
from jepa_mpc.files import claimed
with claimed(Path({str(tmp_path)!r}), {{}}):
    print("in", flush=True)
    input()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == b"in\n"
        for _ in range(2):  # being refused does not loosen the hold
            with pytest.raises(UserError, match=f"process {first.pid} is at work in"), claimed(tmp_path, {}):
                pass
        first.communicate(b"\n")
    with claimed(tmp_path, {}):
        pass


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    script = f"""
import os
from pathlib import Path
from jepa_mpc.files import claimed, whole
with claimed(Path({str(tmp_path)!r}), {{}}), whole(Path({str(tmp_path / "a")!r})) as scratch:
    scratch.write_text("half")
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", script], check=False)
    assert list(tmp_path.glob(".a.*"))
    with claimed(tmp_path, {}):
        assert not list(tmp_path.glob(".a.*"))
