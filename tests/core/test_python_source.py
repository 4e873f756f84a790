"""Syntax trees from several threads."""

import ast
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.python_source import parse

SOURCE = "\n".join(f"def f{n}(x):\n    return [x + {n} for x in range(x) if (x, {{x: [x]}})]" for n in range(200))


def test_threads_parse_at_once() -> None:
    expected = ast.dump(ast.parse(SOURCE))
    with ThreadPoolExecutor(4) as pool:
        assert {ast.dump(tree) for tree in pool.map(parse, [SOURCE] * 16)} == {expected}


def test_what_is_no_python_is_refused() -> None:
    with pytest.raises(SyntaxError):
        parse("def :")
