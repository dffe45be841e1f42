"""YAML text -> nodes with places; every problem at once; the report."""

from edge.source import Problems, parse, report


def read(text: str):
    problems = Problems()
    return parse(text, "cell.yaml", problems), problems


def test_scalars_are_text_as_written():
    root, problems = read("a: yes\nb: 12:30\nc: 010\nd: 'x'\ne:\n")
    assert root is not None and not problems.errors
    assert [entry.value.text for entry in root.entries.values()] == ["yes", "12:30", "010", "x", ""]
    assert [entry.value.quoted for entry in root.entries.values()] == [False, False, False, True, False]


def test_a_report_points_at_the_fault():
    _, problems = read("cell: x\ncell: y\n")
    assert report(problems) == (
        "cell.yaml:2:1: error: `cell` stands here twice: the first is on line 1\n"
        " 2 | cell: y\n"
        "   | ^^^^\n"
        "   = hint: remove one of them\n"
        "\n"
        "1 error\n"
    )
