"""The rules of the house that a machine can hold: charters, sizes, names, floors, pins."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

TOP: Final = Path(__file__).parent.parent
MODULES: Final = sorted((TOP / "relay").rglob("*.py"))

MODULE_LINES: Final = 400
FUNCTION_LINES: Final = 60  # one screen

# Words that say nothing about what a thing is.
EMPTY_WORDS: Final = re.compile(
    r"(Manager|Handler|Helper|Service|Base|Impl|Utils?|Data|Info)(?=[A-Z]|$)|^(manager|handler|helpers?|base|impl|utils?|data|info)$"
)

module = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(TOP)))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@module
def test_a_module_begins_with_its_charter_and_then_says_what_it_must_not_know(path: Path) -> None:
    charter, _, rest = (ast.get_docstring(parsed(path)) or "").partition("\n")
    assert charter.endswith("."), "the first line of the docstring is the charter, one sentence"
    assert rest.strip(), "the second line says what the module must not know"


def own_lines(function: ast.AST) -> int:
    """The lines of a function without those of the functions within it, which are read by themselves."""
    inner = [node for child in ast.iter_child_nodes(function) for node in outermost_functions(child)]
    return height(function) - sum(map(height, inner))


def outermost_functions(node: ast.AST) -> list[ast.AST]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return [node]
    return [found for child in ast.iter_child_nodes(node) for found in outermost_functions(child)]


def height(node: ast.AST) -> int:
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    return (node.end_lineno or node.lineno) - node.lineno + 1


@module
def test_a_module_fits_in_the_head_and_a_function_on_the_screen(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= MODULE_LINES
    functions = [
        node for node in ast.walk(parsed(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert not [function.name for function in functions if own_lines(function) > FUNCTION_LINES]


@module
def test_names_say_what_a_thing_is(path: Path) -> None:
    classes = [node.name for node in ast.walk(parsed(path)) if isinstance(node, ast.ClassDef)]
    assert not [name for name in [*classes, path.stem] if EMPTY_WORDS.search(name)]


@module
def test_only_settings_reads_the_environment(path: Path) -> None:
    readers = {"environ", "environb", "getenv"}
    names = {node.attr for node in ast.walk(parsed(path)) if isinstance(node, ast.Attribute)}
    names |= {
        alias.name
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert path.name == "settings.py" or not names & readers


@module
def test_only_commands_print(path: Path) -> None:
    calls = (node.func for node in ast.walk(parsed(path)) if isinstance(node, ast.Call))
    assert path.parent.name == "cli" or not [
        name for name in calls if isinstance(name, ast.Name) and name.id == "print"
    ]


def test_you_may_only_look_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TOP)
    assert lint_imports(no_cache=True) == EXIT_STATUS_SUCCESS


def test_each_module_of_the_two_lowest_floors_is_held_to_doing_no_io() -> None:
    pyproject = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))
    floors, pure, *_ = pyproject["tool"]["importlinter"]["contracts"]
    *_, rules, vocabulary, _simulator = floors["layers"]
    assert pure["source_modules"] == sorted(
        f"relay.{module}" for floor in (rules, vocabulary) for module in re.findall(r"\w+", floor)
    )


@pytest.mark.parametrize("path", sorted((TOP / "requirements").glob("*.txt")), ids=lambda path: path.name)
def test_pinned_files_hold_names_versions_and_hashes_alone(path: Path) -> None:
    pin = re.compile(
        r"[a-z0-9-]+(\[[a-z0-9,-]+\])?==[0-9a-z.]+( ; [^/]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?"
    )
    assert not [line for line in path.read_text(encoding="utf-8").splitlines() if not pin.fullmatch(line)]


def test_what_the_package_asks_for_is_what_is_pinned() -> None:
    """The ranges in pyproject.toml and in runtime.in name the same packages."""
    pyproject = (TOP / "pyproject.toml").read_text(encoding="utf-8")
    asked = re.search(r"^dependencies = \[\n(.*?)^\]", pyproject, re.MULTILINE | re.DOTALL)
    assert asked is not None
    name = re.compile(r'^\s*"?([a-z0-9-]+)', re.MULTILINE)
    runtime = (TOP / "requirements" / "runtime.in").read_text(encoding="utf-8")
    assert set(name.findall(asked[1])) == set(name.findall(runtime))
