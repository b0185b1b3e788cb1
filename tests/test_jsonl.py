import json

import pytest

from jaxcritique.errors import InvalidInput
from jaxcritique.store import read_jsonl


def test_lines_are_numbered_and_blank_ones_skipped(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": "\xe2\x82\xac"}\r\n\n  \n{"a": "x\xe2\x80\xa8y"}')
    assert list(read_jsonl(path, dict)) == [(1, {"a": "€"}), (4, {"a": "x\u2028y"})]
    assert [value for _, value in read_jsonl(path, lambda row: row["a"])] == ["€", "x\u2028y"]


def refuse(row: dict) -> dict:
    raise ValueError("its 'a' is odd")


@pytest.mark.parametrize(("line", "convert", "message"), [
    (b'{"a": 1', dict, "not JSON (column 8: Expecting ',' delimiter)."),
    (b'{"a": "\xff"}', dict, "not JSON (column 8: not UTF-8)."),
    (b"[" * 100_000, dict, "not JSON (nested too deeply)."),
    (b"[1]", dict, "not a JSON object."),
    (b'{"a": 1}', refuse, "its 'a' is odd."),
])  # fmt: skip
def test_a_line_that_cannot_be_used_is_named_with_a_remedy(line, convert, message, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n" + line + b"\n" + json.dumps({"a": 2}).encode())
    with pytest.raises(InvalidInput) as raised:
        list(read_jsonl(path, convert, "Delete it."))
    assert str(raised.value) == f"{path}:2: {message} Delete it."


def test_no_file_is_said_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl: no such file\."):
        list(read_jsonl(tmp_path / "none.jsonl", dict))
    with pytest.raises(FileNotFoundError, match="a folder; name a file of rows"):
        list(read_jsonl(tmp_path, dict))
