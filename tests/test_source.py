"""YAML text -> nodes with places; every problem at once; the report; what a schema reads from nodes."""

import json
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edge.language.nodes import as_bool, as_choice, as_integer, as_list, as_map, as_number, as_text
from edge.language.report import as_json, report
from edge.language.source import MAX_BYTES, MAX_NODES, MAX_SHOWN, Node, Place, Problems, load, origin, parse, suggest


def read(text):
    problems = Problems()
    return parse(text, "cell.yaml", problems), problems


def only(problems):
    (problem,) = problems
    return problem


def place(node):
    return node.place.line, node.place.column, node.place.length


@pytest.fixture(params=["libyaml", "python"])
def parser(request, monkeypatch):
    if request.param == "python":
        monkeypatch.setattr(yaml, "__with_libyaml__", False)


def test_scalars_are_text_as_written(parser):
    root, problems = read("a: yes\nb: 12:30\nc: 010\nd: 'x'\ne:\nf: \"\"\ng: ~\nh: |\n  two\n  lines\n")
    assert not problems.errors
    values = [entry.value for entry in root.entries.values()]
    assert [value.text for value in values] == ["yes", "12:30", "010", "x", "", "", "~", "two\nlines\n"]
    assert [value.quoted for value in values] == [False, False, False, True, False, True, False, True]


def test_places_count_characters_from_one(parser):
    root, _ = read("# yaml-language-server: $schema=cell.schema.json\nقسم: {ab: [1, 'deux']}\n")
    key, value = root.entries["قسم"].key, root.entries["قسم"].value
    assert place(key) == (2, 1, 3)
    assert place(value) == (2, 6, 17)
    items = value.entries["ab"].value
    assert [place(item) for item in (items, *items.items)] == [(2, 11, 11), (2, 12, 1), (2, 15, 6)]


def test_a_byte_order_mark_and_every_line_end_are_accepted(tmp_path, parser):
    file = tmp_path / "cell.yaml"
    file.write_bytes(b"\xef\xbb\xbfcell: x\r\nscan: 10 ms\r\n")
    problems = Problems()
    root = load(file, problems)
    assert not problems.errors
    assert place(root.entries["cell"].key) == (1, 1, 4)
    assert place(root.entries["scan"].value) == (2, 7, 5)


# What a broken file says: text, code, line, column, a word of the message or of the hint.
FAULTS = [
    ("a: 1\nb:2\nc: 3\n", "missing-space", 2, 3, "write `b: 2`"),
    ("a: {x:1}\n", "missing-space", 1, 5, "write `x: 1`"),
    ("a: [1, 2\nb: 3\nc: 4\n", "unclosed-bracket", 1, 4, "`[` is not closed"),
    ("a: {x: 1\nb: 3\n", "unclosed-bracket", 1, 4, "`{` is not closed"),
    ("a: [{wait: 30 s}\nb: 1\n", "unclosed-bracket", 1, 4, "close it with `]`"),
    ("a: [\n", "unclosed-bracket", 1, 5, "ends within brackets"),
    ("a: {x: [1}\n", "yaml-syntax", 1, 10, "expected `,` or `]`"),
    ('a: "abc\nb: 1\n', "yaml-syntax", 1, 4, "this quote is not closed"),
    ("a: 'it's'\nb: 1\n", "yaml-syntax", 1, 8, "within single quotes"),
    ("a: b: c\n", "yaml-syntax", 1, 5, "put the value in quotes"),
    ("a: 1\n  b: 2\n", "bad-indentation", 2, 3, "the line above has its value already"),
    ("- a\n- b\n c: 1\n", "bad-indentation", 3, 2, "the line above"),
    ("a:\n  b: 1\n c: 2\n", "bad-indentation", 3, 2, "fits the indentation of none"),
    ("a: @x\n", "yaml-syntax", 1, 4, "cannot start with `@`"),
    ("a: %x\n", "yaml-syntax", 1, 4, "put it in quotes"),
    ("a:\n%x\n", "yaml-syntax", 2, None, "in quotes"),
    ("a: {name} is full\nb: 1\n", "yaml-syntax", 1, 11, "in quotes as a whole"),
    ("a: {{ b }}\n", "bad-key", 1, 5, "a key must be text"),
    ("a: >= 3\n", "yaml-syntax", 1, 4, "cannot start with `>`"),
    ("a: *\n", "yaml-syntax", 1, 4, "cannot start with `*`"),
    ("a: & b\n", "yaml-syntax", 1, 4, "cannot start with `&`"),
    ("a: ? b\n", "yaml-syntax", 1, 4, "cannot start with `?`"),
    ("a: - b\n", "yaml-syntax", 1, 4, "a line of its own"),
    ('a: "x\\q"\n', "yaml-syntax", 1, None, "no escape"),
    ('a: "\\u12"\n', "yaml-syntax", 1, 7, "escape"),
    ("a: [1,,2]\n", "yaml-syntax", 1, 7, "expected a value, not `,`"),
    ("a: 5\n}\n", "yaml-syntax", 2, 1, "`}` closes nothing"),
    ("a:\n- x\nb\nc: 1\n", "yaml-syntax", 3, 1, "expected `key: value`"),
    ("a:\n\tb: 1\n\tc: 2\n", "tab", 2, 1, "in 1 more line"),
    ('"a"\n"b"\n', "yaml-syntax", 2, 1, None),
    ("a: !e!x y\n", "yaml-syntax", 1, 4, "YAML tags"),
    ("a: !!python/object:os.system x\n", "yaml-tag", 1, 4, "`!!python/object:os.system`"),
    ("a: &b x\n", "yaml-anchor", 1, 4, "`&b`"),
    ("a: *b\n", "yaml-anchor", 1, 4, "`*b`"),
    ("<<: {a: 1}\n", "yaml-merge", 1, 1, "merge keys"),
    ("%YAML 1.1\n---\na: 1\n", "yaml-directive", 1, 1, "not allowed"),
    ("{: 1}\n", "bad-key", 1, None, "a key is missing"),
    (": 1\n", "bad-key", 1, None, "a key is missing"),
    ("a: 1\n---\nb: 2\n", "several-documents", 2, 1, "one file holds one document"),
    ("a: 1\n...\n", "several-documents", 2, 1, "remove"),
    ("", "empty-file", 1, 1, "empty"),
    ("\n # only this\n\n", "empty-file", 1, 1, "empty"),
    ("a: 1\nb: x\x07y\n", "bad-character", 2, 5, "U+0007"),
    ("a: 1\nb: x\u2028y\n", "bad-character", 2, 5, "U+2028"),
    ("a: 1\nb: 2\na: 3\n", "duplicate-key", 3, 1, "the first is on line 1"),
    ("a: {b: 1, 'b': 2}\n", "duplicate-key", 1, 11, "twice"),
]


@pytest.mark.parametrize(("text", "code", "line", "column", "words"), FAULTS)
def test_a_fault_has_its_place_and_plain_words(parser, text, code, line, column, words):
    _, problems = read(text)
    problem = only(problems)
    assert (problem.code, problem.line) == (code, line)
    assert column is None or problem.column == column
    assert words is None or words in f"{problem.message}; {problem.hint}"


def test_reading_goes_on_after_a_syntax_error():
    root, problems = read("a: [1\nb: 2\nc: @x\nd: 5\nd: 6\ne: {y: 1\nf:\n\tg: 1\n")
    assert root is None
    assert [(problem.line, problem.code) for problem in problems] == [
        (1, "unclosed-bracket"),
        (3, "yaml-syntax"),
        (5, "duplicate-key"),
        (6, "unclosed-bracket"),
        (8, "tab"),
    ]


def test_a_duplicate_key_still_leaves_a_tree_to_check():
    root, problems = read("a: 1\na: 2\n")
    assert problems.errors == 1
    assert root.entries["a"].value.text == "1"


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "- " * 100_000, "? " * 100_000, "{a: " * 100_000, "[\n" * 100_000, "a: [\n" * 100_000],
    ids=["list", "block list", "key", "map", "lines", "unclosed"],
)
def test_depth_is_limited_before_a_tree_is_built(parser, text):
    root, problems = read(text)
    assert root is None
    assert only(problems).code == "too-deep"


def test_the_number_of_values_is_limited():
    root, problems = read("[" + "a," * MAX_NODES + "]")
    assert root is None
    assert only(problems).code == "too-many-values"


def test_an_anchor_bomb_is_one_problem():
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    root, problems = read("\n".join(lines))
    assert root is None
    assert only(problems).code == "yaml-anchor"
    assert only(problems).message == "YAML anchors and aliases (`&a0`) are not allowed; 110 more follow"


def test_what_is_forbidden_is_one_problem_a_kind_even_where_reading_stops():
    root, problems = read("a: !x 1\nb: !y [&c 2, *c\nd: 3\n")
    assert root is None
    assert [(one.code, one.line) for one in problems] == [("yaml-tag", 1), ("unclosed-bracket", 2), ("yaml-anchor", 2)]


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("cell: x\nsay: Balance surchargée\n".encode("latin-1"))
    (tmp_path / "utf16.yaml").write_bytes("cell: x\n".encode("utf-16"))
    (tmp_path / "large.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    problems = Problems()
    names = ("latin", "utf16", "large", "pipe", "folder", "absent", "nul\0")
    assert [load(tmp_path / f"{name}.yaml", problems) for name in names] == [None] * len(names)
    found = {Path(problem.file).stem: problem for problem in problems}
    assert {name: problem.code for name, problem in found.items()} == {
        "latin": "not-utf-8",
        "utf16": "not-utf-8",
        "large": "too-large",
        "pipe": "not-a-file",
        "folder": "not-a-file",
        "absent": "no-file",
        "nul\0": "unreadable",
    }
    assert (found["latin"].line, found["latin"].column) == (2, 22)
    assert "byte 0xE9 at offset 29" in found["latin"].message
    assert "UTF-16" in found["utf16"].hint


def test_a_special_file_of_no_size_is_not_read_on_and_on():
    problems = Problems()
    assert load("/dev/zero", problems) is None
    assert only(problems).code == "not-a-file"


@given(st.text() | st.text("ab:-[]{}\"'|>\n\t #&*!?@%,~\\", max_size=60))
def test_any_text_is_a_tree_or_problems(text):
    root, problems = read(text)
    assert root is not None or problems.errors
    for problem in problems:
        assert problem.line >= 1
        assert problem.column >= 1
        assert problem.message
        assert "libyaml" not in problem.message
    report(problems)
    json.dumps(as_json(problems))


@given(st.binary(max_size=80))
def test_any_bytes_are_a_tree_or_problems(tmp_path_factory, data):
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(data)
    problems = Problems()
    assert load(file, problems) is not None or problems.errors
    report(problems)


@pytest.mark.parametrize("style", [None, "'", '"', "|", ">"])
@given(text=st.text("ab \n\"'\\é中\t#:", min_size=1, max_size=120))
def test_every_character_of_a_scalar_is_found_in_its_file(style, text):
    written = yaml.dump({"key": text}, default_style=style, allow_unicode=True, width=30)
    written = written.replace('"key"', "key").replace("!!str ", "")
    root, problems = read(written)
    if root is None or "key" not in root.entries:
        return
    node = root.entries["key"].value
    lines = written.split("\n")
    for offset, character in enumerate(node.text):
        if character in "abé中":
            found = origin(node, offset, 1, problems)
            assert lines[found.line - 1][found.column - 1] == character
            assert found.length == 1


def test_a_report_points_at_the_fault():
    _, problems = read("cell: x\ncell: y\n")
    problems.warning(Place("cell.yaml", 1, 7, 1), "short-name", "this is a short name")
    assert report(problems) == (
        "cell.yaml:1:7: warning: this is a short name\n"
        " 1 | cell: x\n"
        "   |       ^\n"
        "\n"
        "cell.yaml:2:1: error: `cell` stands here twice: the first is on line 1\n"
        " 2 | cell: y\n"
        "   | ^^^^\n"
        "   = hint: remove one of them\n"
        "\n"
        "1 error, 1 warning\n"
    )
    assert as_json(problems)[1] == {
        "file": "cell.yaml",
        "line": 2,
        "column": 1,
        "severity": "error",
        "code": "duplicate-key",
        "message": "`cell` stands here twice: the first is on line 1",
        "hint": "remove one of them",
    }


def test_a_report_of_nothing_is_nothing():
    assert report(Problems()) == ""


def caret(text, column, length=1):
    problems = Problems()
    problems.remember("f", text)
    problems.error(Place("f", 1, column, length), "fault", "fault")
    _, line, under, *_ = report(problems).splitlines()
    return line.partition("| ")[2], under.partition("| ")[2]


def test_carets_stand_under_tabs_wide_and_combining_characters():
    assert caret("a\tb", 3) == ("a    b", "     ^")
    assert caret("中文x", 3) == ("中文x", "    ^")
    assert caret("中文x", 1, 2) == ("中文x", "^^^^")
    assert caret("e\u0301x", 3) == ("e\u0301x", " ^")
    assert caret("ab", 9) == ("ab", "  ^")


def test_a_long_line_is_cut_around_its_fault():
    line, under = caret("x" * 500 + "FAULT" + "y" * 500, 501, 5)
    assert len(line) < 120
    assert line[0] == line[-1] == "…"
    assert line[under.index("^") : under.rindex("^") + 1] == "FAULT"


def test_nothing_of_a_file_commands_the_terminal():
    problems = Problems()
    problems.remember("f", "a: \33[2J\u202e")
    problems.error(Place("f\33", 1, 4), "fault", "`\33[31m`", "\u202e")
    assert not set(report(problems)) & set("\33\u202e")
    assert "\33[1;31m" in report(problems, color=True)


def test_problems_are_sorted_counted_and_capped():
    problems = Problems()
    for line in range(MAX_SHOWN + 50, 0, -1):
        problems.error(Place("b", line, 1), "fault", "x" * 50)
    problems.error(Place("a", 7, 1), "fault", "first")
    assert problems.errors == MAX_SHOWN + 51
    assert next(iter(problems)).message == "first"
    assert len(list(problems)) == MAX_SHOWN + 1
    assert "… and 50 more in b\n" in report(problems)


def test_suggest():
    names = ["mixer.level", "mixer.inlet", "conveyor.speed"]
    assert suggest("mixer.levl", names) == "did you mean `mixer.level`?"
    assert suggest("Mixer.Level", names) == "did you mean `mixer.level`?"
    assert suggest("speed", names) == "did you mean `conveyor.speed`?"
    assert suggest("robot.state", names) == ""
    assert suggest("", names) == ""
    assert suggest("x" * 100_000, names) == ""


def scalar(text, quoted=False):
    return Node("text", Place("f", 1, 1), text, quoted)


LIST = Node("list", Place("f", 1, 1))


@pytest.mark.parametrize(
    ("reader", "node", "value"),
    [
        (as_text, scalar("yes"), "yes"),
        (as_text, scalar("", True), ""),
        (as_bool, scalar("true"), True),
        (as_bool, scalar("false"), False),
        (as_number, scalar("1.5"), 1.5),
        (as_number, scalar("-2e3"), -2000),
        (as_number, scalar("010"), 10),
        (as_integer, scalar("010"), 10),
        (as_integer, scalar("-9223372036854775808"), -(2**63)),
        (as_list, LIST, []),
    ],
)
def test_readers_give_values(reader, node, value):
    problems = Problems()
    assert reader(node, problems) == value
    assert not problems.errors


@pytest.mark.parametrize(
    ("reader", "node", "words"),
    [
        (as_text, scalar(""), "expected text, found nothing"),
        (as_text, LIST, "expected text, found a list; put it in quotes"),
        (as_bool, scalar("yes"), "expected `true` or `false`, found `yes`; write `true`"),
        (as_bool, scalar("OFF"), "write `false`"),
        (as_bool, scalar("true", True), "without quotes"),
        (as_bool, LIST, "found a list"),
        (as_number, scalar("1,5"), "the decimal point is `.`"),
        (as_number, scalar("5", True), "write `5`, without quotes"),
        (as_number, scalar("nan"), "expected a number, found `nan`"),
        (as_number, scalar("1e999"), "too large"),
        (as_number, scalar("٣"), "expected a number"),
        (as_integer, scalar("1.5"), "expected a whole number"),
        (as_integer, scalar("9" * 5000), "expected a whole number"),
        (as_integer, scalar(""), "found nothing"),
        (as_list, scalar("a"), "expected a list, found `a`"),
    ],
)
def test_readers_say_what_they_expected(reader, node, words):
    problems = Problems()
    assert reader(node, problems) is None
    problem = only(problems)
    assert words in f"{problem.message}; {problem.hint}"


@pytest.mark.parametrize(
    ("limits", "hint"),
    [((1, 5), "from 1 to 5"), ((1, None), "1 or more"), ((None, 5), "5 or less")],
)
def test_numbers_out_of_range(limits, hint):
    low, high = limits
    for text in ("0",) if low is not None else ("6",):
        for reader in (as_number, as_integer):
            problems = Problems()
            assert reader(scalar(text), problems, low=low, high=high) is None
            assert hint in only(problems).hint


def test_a_choice():
    problems = Problems()
    assert as_choice(scalar("hold"), ("hold", "stop"), problems) == "hold"
    assert as_choice(scalar("stpo"), ("hold", "stop"), problems) is None
    assert only(problems).message == "expected one of `hold`, `stop`, found `stpo`"
    assert only(problems).hint == "did you mean `stop`?"


def test_a_map_reports_unknown_and_missing_keys_and_gives_the_rest():
    root, problems = read("drivr: s7\nhost: h\n")
    assert list(as_map(root, ("driver", "host"), {"driver": "", "host": ""}, problems)) == ["host"]
    found = list(problems)
    assert [problem.code for problem in found] == ["unknown-key", "missing-key"] or [
        problem.code for problem in found
    ] == ["missing-key", "unknown-key"]
    assert "did you mean `driver`?" in [problem.hint for problem in found]
    assert list(as_map(root, None, {}, problems)) == ["drivr", "host"]


def test_what_is_no_map():
    root, problems = read("cell:bottling")
    assert as_map(root, None, {}, problems) is None
    assert only(problems).hint == "a space is missing: `cell: bottling`"
