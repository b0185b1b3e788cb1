import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import pytest

from jaxcritique.records import Problem
from jaxcritique.store import (
    DamagedFile,
    Store,
    replace_file,
    replace_folder,
    write_atomically,
)

STORIES = [Problem(str(i), f"{i} + 1?", str(i + 1), "", "gsm8k", level=i or None) for i in range(3)]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "run")


def stored(store: Store, records, *inputs, calls=None):
    """Reads or makes a stage; every making of it is noted in `calls`."""

    def make(stage):
        if calls is not None:
            calls.append(inputs)
        return iter(records), {"tokens": 7}

    return store.dataset("problems", Problem, *inputs, make=make)


def files(folder: pathlib.Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_finished_stage_is_not_redone(store):
    calls = []
    first = stored(store, STORIES, {"seed": 1}, calls=calls)
    again = stored(Store(store.run_dir), STORIES, {"seed": 1}, calls=calls)
    assert len(calls) == 1
    assert list(first) == list(again) == STORIES
    assert (first.key, first.facts, len(first)) == (again.key, again.facts, len(again))
    assert first.facts["rows"] == 3
    assert first.facts["tokens"] == 7


def test_other_inputs_are_another_stage(store):
    calls = []
    first = stored(store, STORIES, {"seed": 1}, calls=calls)
    other = stored(store, STORIES[:1], {"seed": 2}, calls=calls)
    assert calls == [({"seed": 1},), ({"seed": 2},)]
    assert first.key != other.key
    assert list(other) == STORIES[:1]
    assert store.stage("a", 1).key != store.stage("b", 1).key


def test_no_records_are_a_dataset_too(store):
    assert list(stored(store, [])) == list(stored(store, STORIES)) == []


def test_any_text_survives(store):
    texts = ["", "two\nlines\n", "\r\n\r", "a\u2028b\u2029c\x85d\x0b\x0c\x1c", "\0", '"\\', "🍎 €"]
    problems = [Problem(str(i), text, "", "", "gsm8k") for i, text in enumerate(texts)]
    stored(store, problems)
    assert list(stored(store, [])) == problems


def test_data_without_a_manifest_was_never_finished(store):
    folder = store.stage("problems").folder
    (folder / "records.jsonl").write_text("{}\n")
    assert not store.stage("problems").finished
    assert list(stored(store, STORIES)) == STORIES
    assert store.stage("problems").finished


@pytest.mark.parametrize("moment", ["while making", "before the manifest"])
def test_killed_stage_is_redone(moment, store):
    program = """
        import os, signal, sys
        from jaxcritique.records import Problem
        from jaxcritique.store import Stage, Store

        def die(*_, **__):
            os.kill(os.getpid(), signal.SIGKILL)

        def make(stage):
            def records():
                yield Problem("0", "killed", "", "", "gsm8k")
                if sys.argv[2] == "while making":
                    die()
            return records(), {}

        Stage.finish = die
        Store(sys.argv[1]).dataset("problems", Problem, make=make)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(store.run_dir), moment]
    path = os.pathsep.join(filter(None, sys.path))
    killed = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False)
    assert killed.returncode == -signal.SIGKILL
    calls = []
    assert list(stored(store, STORIES, calls=calls)) == STORIES
    assert len(calls) == 1


def test_failed_stage_is_redone(store):
    def fail():
        yield STORIES[0]
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        stored(store, fail())
    assert list(stored(store, STORIES)) == STORIES


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (lambda text: text.replace("1 + 1", "1 + 2"), r"records\.jsonl is not what its manifest"),
        (lambda text: text[:-20], r"records\.jsonl:3: not JSON"),
        (lambda text: text.replace("1 + 1", "\udc80"), r"records\.jsonl:2: not JSON"),
    ],
    ids=["another value", "cut", "not UTF-8"],
)
def test_tampered_records_are_refused_until_they_are_deleted(tamper, message, store):
    stored(store, STORIES)
    path = store.stage("problems").folder / "records.jsonl"
    path.write_text(tamper(path.read_text()), errors="surrogateescape")
    with pytest.raises(DamagedFile, match=message):
        stored(store, STORIES)
    path.unlink()  # As the message says.
    assert list(stored(store, STORIES)) == list(stored(store, [])) == STORIES


@pytest.mark.parametrize("text", ["", '{"rows": 3', "[]", "[" * 100_000, '{"rows": 3}'])
def test_a_damaged_manifest_is_refused_until_it_is_deleted(text, store):
    stored(store, STORIES)
    path = store.stage("problems").folder / "manifest.json"
    path.write_text(text)
    with pytest.raises(DamagedFile, match="Delete the file"):
        stored(store, STORIES)
    path.unlink()
    assert list(stored(store, STORIES)) == STORIES


def test_write_atomically_replaces_all_or_nothing(tmp_path):
    path = tmp_path / "new folder" / "file"
    write_atomically(path, "old")
    write_atomically(path, "line\r\nline\u2028")
    assert path.read_bytes() == "line\r\nline\u2028".encode()
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_bytes() == "line\r\nline\u2028".encode()


def test_a_replaced_file_keeps_its_link_and_leaves_nothing_behind(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    with pytest.raises(UnicodeEncodeError), replace_file(link) as file:
        file.write("half\ud800")
    assert target.read_text() == "old"
    with replace_file(link) as file:
        file.write("new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert {path.name for path in tmp_path.iterdir()} == {"target", "link"}
    with pytest.raises(IsADirectoryError, match=str(tmp_path)), replace_file(tmp_path):
        pass


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    """As hosts do that share a folder and have processes of the same number."""
    path = tmp_path / "file"
    with replace_file(path) as first, replace_file(path) as second:
        first.write("first")
        second.write("second")
    assert path.read_text() == "first"  # The last to end.
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_replaced_folder_holds_only_the_new(tmp_path):
    folder = tmp_path / "model"
    for name in ("old", "new"):
        with replace_folder(folder) as temporary:
            (temporary / name).touch()
            assert files(folder) == ({"old"} if name == "new" else set())
    assert files(tmp_path) == {"model/new"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failed_replacement_leaves_the_old(error, tmp_path):
    folder = tmp_path / "model"
    with replace_folder(folder) as temporary:
        (temporary / "old").touch()

    def fail() -> None:
        with replace_folder(folder) as temporary:
            (temporary / "new").touch()
            raise error

    with pytest.raises(error):
        fail()
    assert files(tmp_path) == {"model/old"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / ".tmp-model-killed").mkdir()
    (tmp_path / ".tmp-other-killed").mkdir()
    with replace_folder(tmp_path / "model") as temporary:
        (temporary / "new").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".tmp-other-killed", "model"]
