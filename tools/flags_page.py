#!/usr/bin/env python
"""Writes docs/flags.md, the table of every flag, from the dataclasses that the command line fills.

python tools/flags_page.py            # --check: say whether the page is current (exit code 1 if not)
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

from lerobot.common.inference_server.configs import PolicyServerConfig, RobotClientConfig
from lerobot.configs.eval import EvalPipelineConfig
from lerobot.configs.flags import flag_rows
from lerobot.configs.predict import PredictPipelineConfig
from lerobot.configs.train import TrainPipelineConfig

PAGE = Path(__file__).parents[1] / "docs" / "flags.md"
HEAD = """# Every flag

Made from the source by `python tools/flags_page.py`; `--help` of a script prints the same. Values are JSON, with the
spellings that people type (`True`, `none`, `1_000`, `[laptop,phone]`). [Train](train.md) explains those that matter.
"""
BAR = r"\|"  # a bar inside a cell
CHOICE = re.compile(r"\[(\w+)\] ?(.*)")
Row = tuple[str, str, str]


def page() -> str:
    """The whole page."""
    parts = [HEAD, "## train.py\n\nBesides these: `--config_path=FILE`, `--policy.path=CHECKPOINT`.\n"]
    groups = grouped(list(flag_rows(TrainPipelineConfig)))
    for (group, choice), rows in groups.items():
        if group == "env":
            continue
        parts.append(f"### {title(group, choice)}\n\n{table(rows)}")
    parts.append("## eval.py\n")
    for (group, choice), rows in grouped(list(flag_rows(EvalPipelineConfig))).items():
        if group != "policy":
            parts.append(f"### {title(group, choice, 'Evaluation')}\n\n{table(rows)}")
    parts.append("## predict.py\n")
    own = [row for row in flag_rows(PredictPipelineConfig) if "." not in row[0]]
    parts.append(f"And `--dataset.*`, `--policy.path`, `--policy.*` as above.\n\n{table(own)}")
    for script, config in (("policy_server.py", PolicyServerConfig), ("robot_client.py", RobotClientConfig)):
        own = [row for row in flag_rows(config) if "." not in row[0]]
        below = "`--policy.path`, `--policy.*`" if config is PolicyServerConfig else "`--robot.*`, `--envelope.*`"
        parts.append(f"## {script}\n\nAnd {below}; see [the arm](arm.md#inference-on-another-machine).\n\n{table(own)}")
    return "\n".join(parts)


def title(group: str, choice: str, run: str = "The run") -> str:
    """The heading of a group of flags."""
    if not group:
        return run
    return f"`--{group}.*`" + (f" with `--{group}.type={choice}`" if choice else "")


def grouped(rows: list[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by (first part of the name, choice); what all choices have alike stands once, without a choice."""
    choices: dict[str, set[str]] = defaultdict(set)
    alike: dict[Row, set[str]] = defaultdict(set)
    split = []
    for name, default, comment in rows:
        group = name.split(".")[0] if "." in name else ""
        found = CHOICE.fullmatch(comment)
        choice, comment = found.groups() if found else ("", comment)
        if choice:
            choices[group].add(choice)
            alike[name, default, comment].add(choice)
        split.append((group, choice, (name, default, comment)))
    groups: dict[tuple[str, str], list[Row]] = {}
    for group, choice, row in split:
        common = not choice or alike[row] == choices[group]
        target = groups.setdefault((group, "" if common else choice), [])
        if row not in target:
            target.append(row)
    # The run's own flags come first, then each group with what all of its choices share before the rest.
    order = list(dict.fromkeys(group for group, _ in groups))
    return dict(sorted(groups.items(), key=lambda item: (item[0][0] != "", order.index(item[0][0]), item[0][1])))


def table(rows: list[Row]) -> str:
    """A Markdown table."""
    lines = ["| flag | default | meaning |", "|---|---|---|"]
    for name, default, comment in rows:
        shown = f"`{default}`" if default else ""
        cells = (f"`--{name}`", shown, comment.replace("<", "&lt;"))
        lines.append(f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page, or compare it."""
    text = page()
    if "--check" not in sys.argv:
        PAGE.write_text(text, "utf-8")
    elif not PAGE.is_file() or PAGE.read_text("utf-8") != text:
        raise SystemExit("docs/flags.md is out of date: run `python tools/flags_page.py`.")


if __name__ == "__main__":
    main()
