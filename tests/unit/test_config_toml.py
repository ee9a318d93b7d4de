"""Where keys stand: in layouts as odd as TOML allows."""

from __future__ import annotations

import pytest

from deploykit.config.toml import parse, positions, statements
from deploykit.errors import ConfigError

ODD = '''\
# a comment = 1
top = "x"  # [not.a.table]
"quoted key".'other' = """
[not.a.table]
key = 1
\\"""
end""""
literal = \'\'\'
x = 2 \'\'\'\'

[ hosts . "web 1" ]
a.b . c = { d = 1, "e" = [ 1, 2, { f = "}" } ] }
list = [
  "]", # ]
  # comment
  'two',
  [ 3,
    4 ],
]
date = 1979-05-27 07:32:00
last = 0x_ff
[[many]]
x = 1
[[many]]
x = 2
[many.sub]
y = 3
'''.replace("0x_ff", "0xff")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_positions(end: str) -> None:
    text = ODD.replace("\n", end)
    parse(text, "f")
    found = positions(text)
    expected = {
        ("top",): 2,
        ("quoted key",): 3,
        ("quoted key", "other"): 3,
        ("literal",): 8,
        ("hosts",): 11,
        ("hosts", "web 1"): 11,
        ("hosts", "web 1", "a", "b", "c"): 12,
        ("hosts", "web 1", "a", "b", "c", "d"): 12,
        ("hosts", "web 1", "a", "b", "c", "e", 2, "f"): 12,
        ("hosts", "web 1", "list"): 13,
        ("hosts", "web 1", "list", 0): 14,
        ("hosts", "web 1", "list", 1): 16,
        ("hosts", "web 1", "list", 2, 1): 18,
        ("hosts", "web 1", "date"): 20,
        ("hosts", "web 1", "last"): 21,
        ("many", 0, "x"): 23,
        ("many", 1, "x"): 25,
        ("many", 1, "sub", "y"): 27,
    }
    assert {path: found.get(path) for path in expected} == expected


def test_every_key_of_the_document_has_a_position() -> None:
    def paths(value: object, path: tuple[str | int, ...]) -> list[tuple[str | int, ...]]:
        pairs: list[tuple[str | int, object]] = []
        if isinstance(value, dict):
            pairs = list(value.items())
        elif isinstance(value, list):
            pairs = list(enumerate(value))
        return [path, *(found for key, each in pairs for found in paths(each, (*path, key)))]

    found = positions(ODD)
    assert set(paths(parse(ODD, "f"), ())) - {(), ("many",)} <= set(found)


def test_statements_cover_whole_lines() -> None:
    found = statements(ODD)
    assert [ODD[each.start : each.end].splitlines()[0].strip()[:12] for each in found][:4] == [
        'top = "x"  #',
        '"quoted key"',
        "literal = ''",
        '[ hosts . "w',
    ]
    assert all(each.start == 0 or ODD[each.start - 1] == "\n" for each in found)
    assert statements("a = 1")[0].end == 5
    assert statements("") == [] and statements("# only") == []


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[apps.x]\nport = " + "9" * 5000, 2, "too many digits"),
        ("[apps.x]\n\nkeep = 99999999999999999999", 3, "64 bits"),
        ("[apps.x.web]\ntimeout = inf", 2, "invalid number"),
        ('[apps.x]\nsource = "a\\u0000b"', 2, "NUL"),
        ("[apps.x]\nexclude = " + "[" * 40 + "]" * 40, 2, "nested too deeply"),
        ("x = " + "[" * 5000 + "]" * 5000, 1, "nested too deeply"),
        ("x = " + "{a=" * 5000 + "1" + "}" * 5000, 1, "nested too deeply"),
    ],
    ids=["digits", "64 bits", "inf", "NUL", "deep", "very deep", "tables"],
)
def test_what_no_key_can_be_is_a_mistake_with_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "deploykit.toml")
    (problem,) = caught.value.problems
    assert problem.line == line and words in problem.what
