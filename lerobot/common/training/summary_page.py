"""One page on a run, in one file: curves, results, what it was trained on, and how it is continued."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse}td{padding:.15rem 1rem .15rem 0;vertical-align:top}td+td{font-variant-numeric:"
    "tabular-nums}img{max-width:100%}code{background:#f2f2f2;padding:.1rem .3rem}h2{margin-top:2rem;font-size:1.1rem}"
)


def write_summary_page(path: Path, cfg, record: dict[str, Any], summary: dict[str, Any], curves: Path) -> None:
    """Write summary.html; the picture of the curves is part of it, so that the file can be sent around."""
    data = record["dataset"]
    picture = base64.b64encode(curves.read_bytes()).decode()
    sections = [
        ("Results", _table(_results(summary))),
        ("Curves", f'<img alt="curves" src="data:image/png;base64,{picture}">'),
        ("Policy", _table({"type": cfg.policy.type, "started from": cfg.policy.pretrained_path or "zero"})),
        ("Training", _table(_training(cfg, record))),
        ("Dataset", _table(_dataset(data))),
        ("Versions", _table(record["versions"] | {"source": _source(record["source"])})),
        ("Continue", f"<p><code>{html.escape(_resume(cfg))}</code></p>"),
    ]
    body = "".join(f"<h2>{title}</h2>{content}" for title, content in sections)
    title = html.escape(f"{cfg.job_name}: {cfg.steps} steps")
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    path.write_text(f"<!doctype html><html><head>{head}</head><body><h1>{title}</h1>{body}</body></html>", "utf-8")


def _results(summary: dict[str, Any]) -> dict[str, Any]:
    rows = {"final loss": summary.get("final_loss")}
    if error := summary.get("held_out_error"):
        rows["held-out action error"] = error["overall"]
        rows["if it held still"] = error["holding_still"]
        rows |= {f"error of {joint}": value for joint, value in error["per_joint"].items()}
        steps = [value for value in error["by_horizon"] if value is not None]
        rows["error at the first / last step of the chunk"] = f"{steps[0]:.4g} / {steps[-1]:.4g}" if steps else None
    rows |= {k: v for k, v in summary.get("eval", {}).items() if isinstance(v, (int, float))}
    return rows


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
    return f"python lerobot/scripts/train.py --resume=true --output_dir={cfg.output_dir}"


def _table(rows: dict[str, Any]) -> str:
    cells = ((k, f"{v:.4g}" if isinstance(v, float) else str(v)) for k, v in rows.items() if v is not None)
    return f"<table>{''.join(f'<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>' for k, v in cells)}</table>"
