"""Report cards as one HTML page without anything outside it: no script, no network, pictures inside."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

import cv2
import numpy as np

from lerobot.common.checks.finding import Finding
from lerobot.common.evaluation import probes as p
from lerobot.common.evaluation.motion import executed
from lerobot.common.evaluation.report_card import ReportCard
from lerobot.common.evaluation.svg import Line, line_chart

PICTURE_HEIGHT = 150
MOMENTS = 6  # worst moments of a page's only checkpoint; several checkpoints share twice as many
COLORS = 7
STYLE = """
:root{--ink:#20262e;--soft:#5d6773;--line:#dde1e6;--back:#fff;--panel:#f6f7f9;--c0:#c8374a;--c1:#1f6fb4;--c2:#1d8a4e;
--c3:#8c52b8;--c4:#c27409;--c5:#0d8f98;--c6:#8a5a3c;--good:#1d7a45;--warn:#9a5b00;--bad:#b00020}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--soft:#9aa4b0;--line:#39414b;--back:#15191e;--panel:#1e242b;
--c0:#ff7a89;--c1:#6db3f2;--c2:#5fcf90;--c3:#c79af0;--c4:#f0ae4a;--c5:#4fd3dc;--c6:#d2a184;--good:#5fcf90;--warn:#f0ae4a;
--bad:#ff7a89}}
body{font:15px/1.5 system-ui,"DejaVu Sans",sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:var(--ink);
background:var(--back)}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin:2.2rem 0 .6rem}
h3{font-size:1rem;margin:1.1rem 0 .3rem}
p{margin:.4rem 0}.soft{color:var(--soft)}code{background:var(--panel);padding:.1rem .3rem;overflow-wrap:anywhere}
table{border-collapse:collapse}th,td{text-align:left;padding:.2rem 1.2rem .2rem 0;vertical-align:top;
border-bottom:1px solid var(--line)}th{font-weight:600}.wide{overflow-x:auto}.broad svg{min-width:38rem}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
ul.findings{list-style:none;padding:0;margin:.3rem 0}ul.findings li{padding:.15rem 0 .15rem 6.2rem;position:relative}
.badge{position:absolute;left:0;top:.28rem;width:5.2rem;text-align:center;font-size:.75rem;border-radius:.3rem;
border:1px solid}.info{color:var(--good)}.warning{color:var(--warn)}.error{color:var(--bad)}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(24rem,100%),1fr));gap:.8rem 1.2rem}
figure{margin:0}figcaption{font-size:.88rem}svg{width:100%;height:auto;display:block}
svg text{font-size:11px;fill:var(--soft)}.grid{stroke:var(--line)}.mark{stroke:var(--soft);stroke-dasharray:3 3}
path{fill:none;stroke-width:1.6;stroke-linejoin:round}.rec{stroke:var(--ink);stroke-width:2}
.still{stroke:var(--soft);stroke-dasharray:5 4}.pale{stroke:var(--c0);opacity:.3;stroke-width:1}
.key{display:inline-block;width:1.4rem;height:.28rem;margin:0 .35rem .18rem .9rem;border-radius:.1rem}
.krec{background:var(--ink)}.bar{display:inline-block;height:.7rem;border-radius:.15rem;background:var(--c1);margin-right:.5rem;min-width:1px}
.moment{display:flex;flex-wrap:wrap;gap:.6rem;align-items:flex-start;margin:.7rem 0;padding:.6rem;
background:var(--panel);border-radius:.4rem}
.moment img{height:150px;max-width:100%;object-fit:contain;border-radius:.25rem}
.moment figure{flex:1 1 17rem;max-width:26rem}
summary{cursor:pointer;color:var(--soft)}
""" + "".join(f".p{i}{{stroke:var(--c{i})}}.k{i}{{background:var(--c{i})}}" for i in range(COLORS))
LABELS = {"info": "fine", "warning": "look at", "error": "problem"}


def make_page(cards: Sequence[ReportCard], datasets: Sequence, source: str) -> str:
    """The page for one or several checkpoints; `datasets` (one per card) give the pictures, `source` names them."""
    names = ", ".join(card.name for card in cards)
    title = html.escape(f"Report card: {names}")
    report = cards[0].report
    shown = sorted(set(report.episode_index.tolist()))
    episodes = f"episode{'s' * (len(shown) > 1)} {', '.join(map(str, shown))}"
    intro = (
        f'<p class="soft">What each checkpoint would have done in recorded episodes, against what was done. '
        f"{html.escape(source)}, {episodes}. Errors and angles are in the units of the recording "
        "(degrees for a Koch arm).</p>"
    )
    sections = [
        ("In short", "".join(_findings(card, len(cards) > 1) for card in cards)),
        ("Numbers", _numbers(cards)),
        ("Error by how far ahead", _horizon(cards)),
        ("What it depends on", "".join(_probes(card, len(cards) > 1) for card in cards)),
        ("Predicted and recorded", _joints(cards)),
        ("Worst moments", "".join(_moments(i, cards, dataset) for i, dataset in enumerate(datasets))),
        ("How it was measured", _method(cards)),
    ]
    body = "".join(f"<section><h2>{name}</h2>{content}</section>" for name, content in sections if content)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>{intro}{body}</body></html>\n"
    )


# --- text and tables --------------------------------------------------------------------------------------------------


def _findings(card: ReportCard, several: bool) -> str:
    head = f"<h3>{html.escape(card.name)}</h3>" if several else ""
    return f'{head}<ul class="findings">{"".join(_finding(f) for f in card.findings)}</ul>'


def _finding(finding: Finding) -> str:
    fix = f" <span class=soft>To mend it: {html.escape(finding.fix)}.</span>" if finding.fix else ""
    badge = f'<span class="badge {finding.severity}">{LABELS[finding.severity]}</span>'
    return f"<li>{badge}{html.escape(finding.message)}{fix}</li>"


def _numbers(cards: Sequence[ReportCard]) -> str:
    shortest = min(cards, key=lambda card: card.report.steps)
    reports = [card.report.first(shortest.report.steps) for card in cards]
    differ = len({card.report.steps for card in cards}) > 1
    note = f"<p class=soft>Mean errors: of the first {shortest.seconds:.2g} s of each chunk, which all have.</p>"
    rows: list[tuple[str, list[str]]] = [
        ("policy", [f"{card.policy_type}, {card.parameters / 1e6:.3g} M parameters" for card in cards]),
        ("a chunk reaches", [f"{card.report.steps} steps, {card.seconds:.2g} s" for card in cards]),
        ("mean error", [_n(report.overall) for report in reports]),
        ("error of an arm that holds still", [_n(report.holding_still) for report in reports]),
    ]
    for joint, name in enumerate(reports[0].joints):
        rows.append((f"error of {name}", [_n(report.per_joint[joint]) for report in reports]))
    rows += [
        ("error near gripper movements", [_n(card.error_at_events[0]) for card in cards]),
        ("gripper movements missed", [_missed(card) for card in cards]),
        ("gripper late by (mean)", [f"{np.mean(c.lags_s):+.2f} s" if c.lags_s else "-" for c in cards]),
        ("jump between chunks, mean (recording there)", [_jump(card) for card in cards]),
        ("largest jump of a joint between chunks", [_largest_jump(card) for card in cards]),
        ("roughness (recording)", [_roughness(card) for card in cards]),
        ("a chunk takes (worst)", [f"{1e3 * c.latency:.0f} ms ({1e3 * max(c.latency_s):.0f})" for c in cards]),
        ("actions carried out of a chunk", [str(card.every) for card in cards]),
        ("trained on these episodes", [{True: "yes", False: "no", None: "not known"}[c.trained_on] for c in cards]),
    ]
    head = "".join(f'<th class="n">{html.escape(card.name)}</th>' for card in cards)
    body = "".join(
        f"<tr><td>{html.escape(name)}</td>{''.join(f'<td class=n>{html.escape(v)}</td>' for v in values)}</tr>"
        for name, values in rows
    )
    return f'{note if differ else ""}<div class="wide"><table><tr><th></th>{head}</tr>{body}</table></div>'


def _n(value: float | None) -> str:
    return "-" if value is None or np.isnan(value) else f"{value:.3g}"


def _roughness(card: ReportCard) -> str:
    predicted, recorded = map(_n, card.roughness)
    return predicted if predicted == "-" else f"{predicted} ({recorded})"


def _missed(card: ReportCard) -> str:
    return f"{sum(e.lag is None for e in card.events)} of {len(card.events)}" if card.events else "-"


def _jump(card: ReportCard) -> str:
    jump, recorded = card.seams
    return f"{jump.mean():.3g} ({recorded.mean():.3g})" if len(jump) else "-"


def _largest_jump(card: ReportCard) -> str:
    jump, _ = card.seams
    if not len(jump):
        return "-"
    joint = int(jump.max(axis=0).argmax())
    return f"{jump[:, joint].max():.3g} ({card.report.joints[joint]})"


def _probes(card: ReportCard, several: bool) -> str:
    if not card.probes:
        return ""
    widest = max(1.0, *(result.change for result in card.probes))
    rows = "".join(
        f"<tr><td>{html.escape(_probe_name(result.name, card))}</td>"
        f'<td><span class="bar" style="width:{9 * result.change / widest:.2f}rem"></span>{result.change:.1%}</td>'
        f'<td class="n">{result.error:.3g}</td></tr>'
        for result in card.probes
    )
    head = f"<h3>{html.escape(card.name)}</h3>" if several else ""
    plain = f'<tr><td class="soft">nothing taken away</td><td></td><td class="n">{card.report.overall:.3g}</td></tr>'
    return (
        f'{head}<div class="wide"><table><tr><th>taken away</th><th>change of its actions</th><th class="n">error then'
        f"</th></tr>{plain}{rows}</table></div>"
    )


def _probe_name(name: str, card: ReportCard) -> str:
    instruction = "instruction: another of the dataset" if len(card.tasks) > 1 else "instruction: its words shuffled"
    names = {
        p.ALL_BLANK: "all cameras blank",
        p.SHIFTED: f"cameras nudged by {p.SHIFT:.0%} of the picture",
        p.STATE: "joint positions of another moment",
        p.INSTRUCTION: instruction,
    }
    return names.get(name, f"{p.camera_name(name)} camera blank")


def _method(cards: Sequence[ReportCard]) -> str:
    checkpoints = "".join(
        f"<li>{html.escape(card.name)}: <code>{html.escape(card.path)}</code>, {len(card.report.frame_index)} chunks "
        f"on {html.escape(card.device)}</li>"
        for card in cards
    )
    return (
        f"<ul>{checkpoints}</ul><p>A chunk of actions is predicted wherever the arm would ask for one (less often "
        "where that is every frame), from the recorded frame: nothing that the policy does reaches its next picture. "
        "So this page finds faults; the success rate in simulation or on the arm decides.</p>"
        "<p><b>Change of its actions</b>: mean difference with and without an input, as a share of the difference "
        "between the actions of two frames (0 %: the input is ignored; about 100 %: it does something else). "
        "<b>Blank</b> is the grey of the picture's own mean. <b>Jump between chunks</b>: first action of a chunk less "
        "the last one carried out of the chunk before. <b>Roughness</b>: mean second difference of the actions inside "
        "a chunk, per frame squared. <b>Gripper movement</b>: the recorded gripper passes the middle of its range; "
        "missed if the prediction does not do so within 1 s.</p>"
    )


# --- charts -----------------------------------------------------------------------------------------------------------


def _legend(cards: Sequence[ReportCard], first: str) -> str:
    keys = "".join(f'<span class="key k{i % COLORS}"></span>{html.escape(c.name)}' for i, c in enumerate(cards))
    return f'<p class="soft">{first}{keys}</p>'


def _horizon(cards: Sequence[ReportCard]) -> str:
    lines = []
    for i, card in enumerate(cards):
        error = card.report.by_horizon.mean(axis=1)
        steps = np.flatnonzero(~np.isnan(error))
        lines.append(Line((steps + 1) / card.fps, error[steps], f"p{i % COLORS}", card.name))
    longest = max((line.x for line in lines), key=len)
    marks = sorted({card.every / card.fps for card in cards if card.every / card.fps <= longest[-1]})
    if len(longest) < 2:
        return ""
    still = max((card.report for card in cards), key=lambda report: report.steps).holding_still_by_horizon
    if still is not None:
        lines.append(Line(longest, still[: len(longest)], "still", "holding still"))
    chart = line_chart(lines, "seconds ahead", "error by how far ahead", (820, 230), marks, from_zero=True)
    legend = _legend(cards, "Dashed: an arm that holds still; upright: where the next chunk takes over.")
    return f'{legend}<div class="wide broad">{chart}</div>'


def _joints(cards: Sequence[ReportCard]) -> str:
    report = cards[0].report
    episodes = sorted(set(report.episode_index.tolist()))
    errors = [report.absolute_error[report.episode_index == e] for e in episodes]
    order = [episodes[i] for i in np.argsort([np.nanmean(error) for error in errors])]
    shown = dict.fromkeys([order[len(order) // 2], order[-1]])
    notes = ["a typical episode", "the episode with the largest error"]
    parts = [_legend(cards, '<span class="key krec"></span>recorded')]
    for number, episode in enumerate(shown):
        note = "the only episode" if len(order) == 1 else notes[number]
        charts = "".join(_joint(cards, episode, joint) for joint in range(len(report.joints)))
        opened = " open" if number == 0 else ""
        parts.append(
            f'<details{opened}><summary>Episode {episode}, {note}</summary><div class="charts">{charts}</div></details>'
        )
    return "".join(parts)


def _joint(cards: Sequence[ReportCard], episode: int, joint: int) -> str:
    lines = []
    for i, card in enumerate(cards):
        if not (card.report.episode_index == episode).any():
            continue
        motion = executed(card.report, episode)
        seconds = motion.frames / card.fps
        if not lines:
            lines.append(Line(seconds, motion.recorded[:, joint], "rec", "recorded"))
        if len(cards) == 1:
            lines.append(_whole_chunks(card, episode, joint))
        lines.append(Line(seconds, motion.predicted[:, joint], f"p{i % COLORS}", card.name))
    name = cards[0].report.joints[joint]
    chart = line_chart(lines, "seconds", f"{name} in episode {episode}")
    return f"<figure><figcaption>{html.escape(name)}</figcaption>{chart}</figure>"


def _whole_chunks(card: ReportCard, episode: int, joint: int) -> Line:
    """Every chunk of an episode to its end, with gaps between them."""
    x, y = [], []
    for i in np.flatnonzero(card.report.episode_index == episode):
        steps = np.flatnonzero(card.report.valid[i])
        x.append(np.append((card.report.frame_index[i] + steps) / card.fps, card.report.frame_index[i] / card.fps))
        y.append(np.append(card.report.predicted[i, steps, joint], np.nan))
    return Line(np.concatenate(x), np.concatenate(y), "pale", "rest of each chunk")


# --- worst moments ----------------------------------------------------------------------------------------------------


def worst_moments(card: ReportCard, count: int) -> list[int]:
    """Indices of the chunks whose executed part is furthest off, at least a second apart."""
    error = np.nanmean(card.report.absolute_error[:, : card.every], axis=(1, 2))
    report, found = card.report, []
    for i in np.argsort(-error).tolist():
        near = (
            report.episode_index[i] == report.episode_index[j]
            and abs(int(report.frame_index[i]) - int(report.frame_index[j])) < card.fps
            for j in found
        )
        if not any(near):
            found.append(i)
        if len(found) == count:
            break
    return found


def _moments(number: int, cards: Sequence[ReportCard], dataset) -> str:
    card, css = cards[number], f"p{number % COLORS}"
    count = MOMENTS if len(cards) == 1 else max(1, 2 * MOMENTS // len(cards))
    head = f"<h3>{html.escape(card.name)}</h3>" if len(cards) > 1 else ""
    return head + "".join(_moment(card, dataset, chunk, css) for chunk in worst_moments(card, count))


def _moment(card: ReportCard, dataset, chunk: int, css: str) -> str:
    report = card.report
    episode, frame = int(report.episode_index[chunk]), int(report.frame_index[chunk])
    error = np.nanmean(report.absolute_error[chunk, : card.every], axis=0)
    joint = int(error.argmax())
    item = dataset[row_of(dataset, episode, frame)]
    pictures = "".join(
        f'<img alt="{p.camera_name(key)} camera" src="data:image/jpeg;base64,{_jpeg(item[key])}">'
        for key in dataset.meta.camera_keys
    )
    seconds = (frame + np.flatnonzero(report.valid[chunk])) / card.fps
    recorded, predicted = (a[chunk, report.valid[chunk], joint] for a in (report.recorded, report.predicted))
    lines = [Line(seconds, recorded, "rec", "recorded"), Line(seconds, predicted, css, "predicted")]
    chart = line_chart(lines, "seconds", f"{report.joints[joint]} from here on", (330, 130)) if len(seconds) > 1 else ""
    caption = (
        f"Episode {episode}, frame {frame} ({frame / card.fps:.1f} s): {error.mean():.3g} off on average, "
        f"{html.escape(report.joints[joint])} {error[joint]:.3g}."
    )
    return f'<div class="moment">{pictures}<figure><figcaption>{caption}</figcaption>{chart}</figure></div>'


def row_of(dataset, episode: int, frame: int) -> int:
    """The row of a frame in a loaded dataset."""
    position = list(dataset.episode_indices).index(episode)
    return int(dataset.episode_data_index["from"][position]) + frame


def _jpeg(picture) -> str:
    """A uint8 picture (C, H, W), or the last of several, as base64 text of a small JPEG."""
    array = picture.reshape(-1, *picture.shape[-3:])[-1].permute(1, 2, 0).numpy()
    width = round(array.shape[1] * PICTURE_HEIGHT / array.shape[0])
    small = cv2.resize(array, (width, PICTURE_HEIGHT), interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    return base64.b64encode(data.tobytes()).decode()
