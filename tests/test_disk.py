"""The disk: whole or not at all, on every file system, with errors that name the file."""

import errno
import json
import os
import resource
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from jelicit.disk import (
    Journal,
    check_out_folder,
    looks_like_url,
    open_folder,
    temporary,
    whole_file,
    whole_folder,
    write_bytes,
    write_text,
)


@contextmanager
def full_after(count):
    """The kernel refuses bytes of a file beyond a limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- files ---------------------------------------------------------------------------------------


def test_a_file_is_the_old_one_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_text(path, "line\r\nü\u2028\n")
    assert path.read_bytes() == "line\r\nü\u2028\n".encode()
    with whole_file(path) as file:
        file.write(b"half")
        file.flush()
        assert path.read_bytes() != b"half"
    assert path.read_bytes() == b"half"

    def failing():
        with whole_file(path) as file:
            file.write(b"never")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert (path.read_bytes(), names(path.parent)) == (b"half", ["a.txt"])


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.txt"
    write_bytes(path, b"old")
    with (
        full_after(100),
        pytest.raises(OSError, match=rf"{path} could not be written: File") as told,
    ):
        write_bytes(path, [b"x" * 60, b"y" * 60])
    assert told.value.errno == errno.EFBIG
    assert "Free some space" in str(told.value)
    assert (path.read_bytes(), names(tmp_path)) == (b"old", ["a.txt"])


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES])
def test_a_folder_that_cannot_be_flushed_is_no_failure(tmp_path, monkeypatch, code):
    real = os.fsync

    def fsync(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "a", "a")
    write_bytes(tmp_path / "a", b"b", replace=False)
    with whole_folder(tmp_path / "f") as folder:
        (folder / "c").write_text("c")
    assert ((tmp_path / "a").read_text(), (tmp_path / "f" / "c").read_text()) == ("a", "c")


def test_a_folder_that_cannot_even_be_opened_is_no_failure(tmp_path, monkeypatch):
    """As under Windows."""
    real = os.open

    def refuse(path, *args, **options):
        if os.path.isdir(path):  # noqa: PTH112
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    write_text(tmp_path / "a", "a")
    assert names(tmp_path) == ["a"]


def test_a_file_that_cannot_be_flushed_for_want_of_space_is_a_failure(tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"/a could not be written: No space left"):
        write_text(tmp_path / "a", "a")
    assert names(tmp_path) == []


def test_threads_that_write_one_file_do_not_mix(tmp_path):
    path, errors = tmp_path / "a", []

    def write(letter):
        try:
            for _ in range(20):
                write_bytes(path, letter * 5000)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(set(path.read_bytes())) == 1
    assert names(tmp_path) == ["a"]


def test_a_name_as_long_as_file_systems_allow_is_written(tmp_path):
    path = tmp_path / ("ü" * 127)
    write_text(path, "a")
    assert path.read_text() == "a"


# --- folders -------------------------------------------------------------------------------------


def test_a_folder_appears_whole_and_is_never_overwritten(tmp_path):
    with whole_folder(tmp_path / "f") as folder:
        (folder / "a").write_text("a")
        assert not (tmp_path / "f").exists()
    with pytest.raises(FileExistsError, match=r"/f is there already"), whole_folder(tmp_path / "f"):
        raise AssertionError("begun all the same")

    def failing():
        with whole_folder(tmp_path / "g") as folder:
            (folder / "a").write_text("a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert names(tmp_path) == ["f"]


def test_of_two_that_make_one_folder_the_first_wins(tmp_path):
    def make(words, meanwhile=lambda: None):
        with whole_folder(tmp_path / "f") as folder:
            (folder / "a").write_text(words)
            meanwhile()

    with pytest.raises(FileExistsError, match=r"/f is there already"):
        make("mine", meanwhile=lambda: make("other"))
    assert (tmp_path / "f" / "a").read_text() == "other"
    assert names(tmp_path) == ["f"]


KILLED_WHILE_WRITING = """
import os, signal, sys
from jelicit.disk import whole_file
with whole_file(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_file_that_is_written_again_leaves_nothing_of_killed_writers_and_all_of_others(tmp_path):
    path, others = tmp_path / "rows [1].parquet", (".rows.swp", ".other.tmp")
    subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(path)], check=False)
    for name in others:
        (tmp_path / name).write_bytes(b"somebody's")
        os.utime(tmp_path / name, (0, 0))
    assert len(names(tmp_path)) == 3
    write_bytes(path, b"whole")
    assert names(tmp_path) == sorted([*others, path.name])


def test_leftovers_are_those_of_processes_that_ended(tmp_path):
    code = "from jelicit.disk import temporary; print(temporary.temporary_name('a'))"
    command = [sys.executable, "-c", code]
    dead = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    waiting = subprocess.Popen(
        [sys.executable, "-c", f"{code.replace('))', '), flush=True)')}; input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert waiting.stdout
    try:
        alive = waiting.stdout.readline().strip()
        (tmp_path / dead).mkdir()
        (tmp_path / dead / "inside").touch()
        for name in (f"{dead}.orbax-checkpoint-tmp", alive, ".a.tmp", "a.tmp"):
            (tmp_path / name).touch()
        temporary.remove_leftovers(tmp_path)
        # Whose `.a.tmp` is nobody knows: it is young.
        assert names(tmp_path) == sorted([alive, ".a.tmp", "a.tmp"])
        assert waiting.poll() is None
    finally:
        waiting.communicate("\n", timeout=60)


def test_whether_a_process_runs_is_never_asked_by_a_signal(monkeypatch):
    """Under Windows any signal ends or interrupts the process."""

    def never(*_args):
        raise AssertionError("a signal was sent")

    monkeypatch.setattr(os, "kill", never)
    # Which asks the system's own way: elsewhere than under Windows that may be a signal 0.
    monkeypatch.setattr(temporary.psutil, "pid_exists", lambda process: process == os.getppid())
    name = temporary.temporary_name("a").replace(f".{os.getpid()}-", f".{os.getppid()}-")
    assert not temporary.is_leftover(name, lambda: 0.0)


def test_where_results_cannot_go_is_said_with_the_option(tmp_path):
    check_out_folder(tmp_path / "new" / "folder")
    assert names(tmp_path / "new" / "folder") == []
    (tmp_path / "file").write_text("words")
    with pytest.raises(ValueError, match=r"--to .*/file/f cannot be written to \(Not a dir"):
        check_out_folder(tmp_path / "file" / "f", option="--to")
    with pytest.raises(ValueError, match=r"--out s3:/b/f: results are written to a local"):
        check_out_folder("s3:/b/f")
    with full_after(3), pytest.raises(ValueError, match=r"cannot be written to \(File too large"):
        check_out_folder(tmp_path / "new")


@pytest.mark.parametrize("path", ["s3://b", "s3:/b", "file:///a", "memory:/a"])
def test_urls_are_told_from_paths(path):
    assert looks_like_url(path)


@pytest.mark.parametrize("path", ["c:/a", "/a/b", "a:b", "runs/s3:/b", "C:\\a"])
def test_paths_are_told_from_urls(path):
    assert not looks_like_url(path)


@pytest.mark.parametrize("kind", ["path", "file", "memory"])
def test_a_folder_here_or_there_does_the_same(tmp_path, kind):
    where = {"path": tmp_path, "file": f"file://{tmp_path}", "memory": f"memory://{tmp_path}"}[kind]
    folder = open_folder(where)
    folder.create()
    stamp = folder.write("a", [b"one ", b"two"])
    assert stamp == folder.stamp("a")
    assert (folder.read("a"), folder.read_range("a", 4, 6)) == (b"one two", b"tw")
    folder.write("a", [b"other"], replace=False)
    assert (folder.read("a"), folder.listing()) == (b"one two", {"a": 7})
    folder.remove("a")
    folder.remove("a")
    assert not folder.exists("a")
    with pytest.raises(FileNotFoundError):
        folder.read("a")


# --- journals ------------------------------------------------------------------------------------


def journal(path, **options):
    return Journal(path, keys=("run", "step"), what="step of a run", **({"read": dict} | options))


def test_a_journal_gives_back_what_was_put_and_the_last_word_counts(tmp_path):
    path = tmp_path / "new" / "j.jsonl"
    first = journal(path)
    assert first.get("a", 1) is None
    first.put("a", 1, x=[1, None])
    first.put("b", 1, x="ü\u2028\n")
    first.put("a", 1, x=2)
    for one in (first, journal(path)):
        assert one.get("a", 1) == {"run": "a", "step": 1, "x": 2}
        assert one.get("b", 1) == {"run": "b", "step": 1, "x": "ü\u2028\n"}
    assert len(path.read_bytes().splitlines()) == 3
    nowhere = journal(None)
    nowhere.put("a", 1, x=1)
    assert nowhere.get("a", 1) is None


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_torn_last_line_is_cut_off_wherever_it_was_torn(tmp_path, cut):
    path = tmp_path / "j.jsonl"
    journal(path).put("a", 1, x=1)
    whole = path.read_bytes()
    journal(path).put("a", 2, x="é")
    path.write_bytes(path.read_bytes()[:-cut])
    again = journal(path)
    assert again.get("a", 2) is None
    assert path.read_bytes() == whole
    again.put("a", 3, x=3)
    assert journal(path).get("a", 3) == {"run": "a", "step": 3, "x": 3}


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "3",
        '{"run": "a"}',
        '{"run": [1], "step": 1}',
        "\xff",
        "[" * 100_000,
        '{"run": "a", "ste',
    ],
)
def test_a_whole_line_that_is_none_is_named(tmp_path, line):
    path = tmp_path / "j.jsonl"
    good = json.dumps({"run": "a", "step": 1}) + "\n"
    path.write_bytes(good.encode() + line.encode("latin-1") + b"\n")
    with pytest.raises(ValueError, match=r"j\.jsonl, line 2 is no step of a run \("):
        journal(path)


def test_a_line_that_the_disk_does_not_take_leaves_the_journal_whole(tmp_path):
    path = tmp_path / "j.jsonl"
    one = journal(path)
    one.put("a", 1, x="x" * 50)
    before = path.read_bytes()
    with (
        full_after(len(before) + 10),
        pytest.raises(OSError, match=r"j\.jsonl could not be written"),
    ):
        one.put("a", 2, x="x" * 50)
    assert path.read_bytes() == before
    assert one.get("a", 2) is None
    one.put("a", 3, x=1)
    assert journal(path).get("a", 3) is not None
