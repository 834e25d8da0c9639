"""The documentation: links are valid, commands parse, Python code runs, and the reference lists every option."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import ROOT
from PIL import Image

from cifar100.cli.main import COMMANDS, main
from cifar100.config import Config

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if "reference" not in page.parts]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation with the generated reference, as in `make docs`."""
    root = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "docs", root / "docs", ignore=shutil.ignore_patterns("reference"))
    shutil.copy(ROOT / "mkdocs.yml", root)
    command = [sys.executable, ROOT / ".ci" / "reference.py", root / "docs" / "reference"]
    subprocess.run(command, check=True)
    return root


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs generate them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@each_page
def test_links_lead_to_existing_files_and_headings(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.fixture
def parse_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Subcommands parse their arguments and do nothing."""
    for kind in set(COMMANDS.values()):
        monkeypatch.setattr(kind, "run", lambda _self: 0)


def commands(text: str) -> list[list[str]]:
    """The words of each command in the shell blocks of a page, including each command of pipelines and lists."""
    found: list[list[str]] = []
    for block in blocks(text, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            start = 0
            for place, word in enumerate([*words, ";"]):
                if word in (";", "&&", "|", "||", "&"):
                    found.append(words[start:place])
                    start = place + 1
    return [words for words in found if words]


def exit_code(words: Sequence[str]) -> object:
    try:
        return main(words)
    except SystemExit as error:  # from --help and from parse errors
        return error.code or 0


def check_command(words: Sequence[str], page: Path) -> None:
    """Fail unless the command is valid: its subcommand and options, make target or script exist."""
    words = words[: words.index(">")] if ">" in words else words
    while words and re.match(r"[A-Z_0-9]+=", words[0]):
        words = words[1:]
    context = f"{page.name}: {' '.join(words)}"
    if words[0] == "torchrun":
        place = words.index("cifar100") if "cifar100" in words else None
        words = words if place is None else words[place:]
    if words[0] in ("cifar100", ".venv/bin/cifar100"):
        assert exit_code(words[1:]) == 0, context
    elif words[0] == "make":
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert {word for word in words[1:] if "=" not in word} <= targets, context
    elif words[0].endswith("python") and words[1] != "-m":
        assert any((folder / words[1]).is_file() for folder in (ROOT, ROOT / "cifar100")), context
    else:
        assert words[0] in (
            "pip",
            "hf",
            "uv",
            "cd",
            "export",
            "torchrun",
            "git",
            "docker",
            "source",
            "python3",
            ".venv/bin/python",
        ), context


@each_page
@pytest.mark.usefixtures("parse_only")
def test_commands_parse(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in commands(page.read_text()):
        check_command(words, page)


@pytest.mark.usefixtures("parse_only")
def test_a_wrong_option_in_a_document_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for line in ("cifar100 train --no-such-flag 1", "cifar100 bake", "make bread", "python examples/none.py"):
        with pytest.raises(AssertionError):
            check_command(line.split(), ROOT / "README.md")


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "```python" in page.read_text()], ids=lambda page: page.stem
)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with a photo."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (60, 40), "green").save("photo.jpg")
    for code in blocks(page.read_text(), "python"):
        exec(compile(code, str(page), "exec"), {})


def test_the_reference_has_every_subcommand_and_setting(site: Path) -> None:
    subcommands, settings = ((site / "docs/reference" / name).read_text() for name in ("subcommands.md", "settings.md"))
    assert re.findall(r"^## cifar100 (.+)$", subcommands, re.MULTILINE) == [
        name for name in COMMANDS if name != "train"
    ]
    assert subcommands.count("usage: cifar100") == len(COMMANDS) - 1
    assert {f"--{name.replace('_', '-')}" for name in Config().flat()} <= {
        *re.findall(r"^  (--[a-z0-9-]+)", settings, re.M)
    }
    assert "| `--muon-lr` | 0.1 | 0.06 | 0.06 | 0.1 |" in settings


@pytest.mark.slow
def test_the_site_builds_without_a_warning(site: Path) -> None:
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    done = subprocess.run(command, cwd=site, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (site / "site" / "tutorial" / "index.html").is_file()
