"""One page on a run, in one file: curves, results, what it was trained on, and how it is continued."""

from __future__ import annotations

import base64
import html
import os
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lerobot.common.utils.io_utils import read_json, write_text

EVAL_DIR, EVAL_NAME = "eval", "eval_info.json"
MOST_FILM_BYTES = 2_000_000  # larger films stay beside the page

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse}td{padding:.15rem 1rem .15rem 0;vertical-align:top}td+td{font-variant-numeric:"
    "tabular-nums}td,code{overflow-wrap:anywhere}td:first-child{min-width:6.5rem}img,video{max-width:100%}"
    "code{background:#f2f2f2;padding:.1rem .3rem}h2{margin-top:2rem;font-size:1.1rem}"
)


def write_summary_page(path: Path, cfg, record: dict[str, Any], summary: dict[str, Any], curves: Path) -> None:
    """Write summary.html; the picture of the curves is part of it, so that the file can be sent around."""
    data = record["dataset"]
    picture = base64.b64encode(curves.read_bytes()).decode()
    sections = [
        ("Results", _table(_results(summary, data["units"]))),
        ("Curves", f'<img alt="curves" src="data:image/png;base64,{picture}">'),
        ("In the environment", _evaluations(Path(cfg.output_dir))),
        ("Policy", _table({"type": cfg.policy.type, "started from": cfg.policy.pretrained_path or "zero"})),
        ("Training", _table(_training(cfg, record))),
        ("Dataset", _table(_dataset(data))),
        ("Versions", _table(record["versions"] | {"source": _source(record["source"])})),
        ("Continue", f"<p><code>{html.escape(_resume(cfg))}</code></p>"),
    ]
    body = "".join(f"<h2>{title}</h2>{content}" for title, content in sections if content)
    title = html.escape(f"{cfg.job_name}: {cfg.steps} steps")
    view = '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
    head = f'<meta charset="utf-8">{view}<title>{title}</title><style>{STYLE}</style>'
    write_text(f'<!doctype html><html lang="en"><head>{head}</head><body><h1>{title}</h1>{body}</body></html>', path)


def _results(summary: dict[str, Any], units: str | None) -> dict[str, Any]:
    rows = {"final loss": summary.get("final_loss")}
    if error := summary.get("held_out_error"):
        unit = f" ({units} units)" if units else ""
        rows[f"held-out action error{unit}"] = error["overall"]
        rows["if it held still"] = error["holding_still"]
        rows |= {f"error of {joint}": value for joint, value in error["per_joint"].items()}
        steps = [value for value in error["by_horizon"] if value is not None]
        rows["error at the first / last step of the chunk"] = f"{steps[0]:.4g} / {steps[-1]:.4g}" if steps else None
    if total := summary.get("eval"):
        rows["in the environment"] = _outcome(total)
        rows["steps of an episode"], rows["environment steps per second"] = total["avg_n_steps"], total["steps_per_s"]
    return rows


def _evaluations(output: Path) -> str:
    """Every evaluation in a row of a table, and the newest one's films: a success and a failure inside the page."""
    files = sorted((output / EVAL_DIR).glob(f"step_*/{EVAL_NAME}"))
    if not files:
        return ""
    results = {int(file.parent.name.removeprefix("step_")): read_json(file) for file in files}
    rows = {f"step {step}": _outcome(result["aggregated"]) for step, result in sorted(results.items())}
    newest = results[max(results)]["per_episode"]
    films = [row for row in newest if row["video"] and Path(row["video"]).is_file()]
    small = [row for row in films if Path(row["video"]).stat().st_size <= MOST_FILM_BYTES]
    inside = [next((row for row in small if row["success"] == outcome), None) for outcome in (True, False)]
    shown = "".join(_film(row) for row in inside if row)
    others = (f'<a href="{_relative(row, output)}">{_film_name(row)}</a>' for row in films if row not in inside)
    return f"{_table(rows)}<p>{shown}</p><p>{', '.join(others)}</p>"


def _outcome(total: dict[str, Any]) -> str:
    low, high = total["success_interval"]
    rate = f"{total['pc_success']:.0f} % success (95 % interval {low:.0f}-{high:.0f} %, {total['n_episodes']} episodes)"
    return f"{rate}, reward {total['avg_sum_reward']:.3g}"


def _film_name(row: dict[str, Any]) -> str:
    return f"seed {row['seed']}: {'success' if row['success'] else 'failure'}"


def _relative(row: dict[str, Any], output: Path) -> str:
    return quote(os.path.relpath(row["video"], output))


def _film(row: dict[str, Any]) -> str:
    source = f"data:video/mp4;base64,{base64.b64encode(Path(row['video']).read_bytes()).decode()}"
    return f'<video controls muted width="460" title="{_film_name(row)}" src="{source}"></video> '


def _training(cfg, record: dict[str, Any]) -> dict[str, Any]:
    optimizer = cfg.optimizer
    return {
        "steps": cfg.steps,
        "seed": record["seed"],
        "batches": ", ".join(f"{k} {v}" for k, v in record["batches"].items()),
        "optimizer": f"{optimizer.type}, learning rate {optimizer.lr:g}, weight decay {optimizer.weight_decay:g}",
        "schedule": cfg.scheduler.type if cfg.scheduler else "constant",
        "device": ", ".join(f"{k} {v}" for k, v in record["device"].items()),
        "command": record["command"],
    }


def _dataset(data: dict[str, Any]) -> dict[str, Any]:
    return {
        "folder": data["root"],
        "fingerprint": data["fingerprint"],
        "episodes, frames": f"{len(data['episodes'])}, {data['frames']} at {data['fps']} FPS",
        "robot": data["robot_type"],
        "tasks": "; ".join(data["tasks"]),
    }


def _source(source: dict[str, Any] | None) -> str:
    if source is None:
        return "unknown (no git checkout)"
    changed = f", {len(source['changed'])} files changed" if source["changed"] else ""
    return source["commit"][:12] + changed


def _resume(cfg) -> str:
    return f"python lerobot/scripts/train.py --resume=true --output_dir={shlex.quote(str(cfg.output_dir))}"


def _table(rows: dict[str, Any]) -> str:
    cells = ((k, f"{v:.4g}" if isinstance(v, float) else str(v)) for k, v in rows.items() if v is not None)
    return f"<table>{''.join(f'<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>' for k, v in cells)}</table>"
