"""The documentation: links lead somewhere, the table of flags is that of the source, both READMEs say the same."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "grasp_dataset" / "README.md"]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"```.*?```", re.DOTALL)


def anchors(page):
    """The anchors of a page's headings."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", head.lower()).strip()) for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in LINK.findall(FENCE.sub("", page.read_text("utf-8"))):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"


def test_every_page_stands_in_the_menu():
    menu = (ROOT / "mkdocs.yml").read_text()
    assert {page.name for page in (ROOT / "docs").glob("*.md")} == set(re.findall(r": (\w+\.md)$", menu, re.MULTILINE))


def test_the_table_of_flags_is_current():
    script = ROOT / "tools" / "flags_page.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_both_readmes_have_the_same_commands_and_the_place_for_the_table():
    english, chinese = (ROOT / name for name in ("README.md", "README.zh-CN.md"))
    command = re.compile(r"`((?:bash|python) [\w./]+)")
    commands = [command.findall(page.read_text("utf-8")) for page in (english, chinese)]
    assert commands[0] == commands[1] and commands[0]
    for page in (english, chinese):
        text = page.read_text("utf-8")
        assert "<!-- leaderboard -->" in text and "docs/images/twin.png" in text
    assert chinese.name in english.read_text("utf-8") and english.name in chinese.read_text("utf-8")
