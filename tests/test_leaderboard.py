"""The comparison of all policies: its table, and that its settings are settings of the policies."""

import importlib.util
from pathlib import Path

import pytest

from lerobot.configs.parser import parse
from lerobot.configs.train import TrainPipelineConfig

pytest.importorskip("mujoco")
FILE = Path(__file__).parents[1] / "benchmarks" / "leaderboard.py"
spec = importlib.util.spec_from_file_location("leaderboard", FILE)
leaderboard = importlib.util.module_from_spec(spec)
spec.loader.exec_module(leaderboard)


def row(policy, scene, wins, **more):
    cost = {
        "cpu_s": 1500.0,
        "wall_s": 900.0,
        "memory_gb": 1.25,
        "steps": 3400,
        "latency_s": 0.012,
        "parameters": 857_000,
        **{"commit": "abc", "torch": "2.13.0", "minutes": 25, "machine": "AMD EPYC", "threads": 1},
    }
    return {"policy": policy, "scene": scene, "n_success": wins, "n_episodes": 50, **cost, **more}


STILL = {"policy": "holds still", "scene": "A", "n_success": 0, "n_episodes": 50}


def test_the_table_ranks_by_scene_a_and_shows_intervals_and_costs():
    rows = [row("act", "A", 44), row("smolvla", "A", 47), row("act", "B", 10), STILL]
    lines = leaderboard.table(rows, leaderboard.parse(["--policies=act,smolvla"])).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["smolvla", "act", "holds still"]
    assert (
        "| act | 44/50 = 88% (76-94) | 10/50 = 20% (11-33) | 0.86 M | 25 / 25 | 3400 / 3400 | 12 ms | 1.2 GB |" in lines
    )
    assert "| holds still | 0/50 = 0% (0-7) | not run |" in lines[-1]
    assert all(line.count("|") == lines[0].count("|") for line in lines)


@pytest.mark.parametrize(
    ("language", "cell", "sentence"),
    [
        ("en", "not run", "Not run: vqbet on scene A; smolvla, vqbet on scene B."),
        ("zh", "未运行", "未运行：场景 A 上的 vqbet; 场景 B 上的 smolvla, vqbet。"),
    ],
)
def test_a_table_that_is_not_finished_says_what_is_missing(language, cell, sentence):
    args = leaderboard.parse(["--policies=act,smolvla,vqbet"])
    rows = [row("act", "A", 20), row("act", "B", 10), row("smolvla", "A", 47), STILL]
    table, lacking, source = leaderboard.text_of(rows, args, language).split("\n\n")
    assert table.splitlines()[-1] == f"| vqbet | {cell} | {cell} |  |  |  |  |  |"
    assert f"| smolvla | 47/50 = 94% (84-98) | {cell} | 0.86 M |" in table
    assert lacking == sentence and "25" in source
    complete = [row(policy, scene, 1) for policy in args.policies for scene in args.scenes]
    assert len(leaderboard.text_of(complete, args, language).split("\n\n")) == 2


def test_a_table_names_the_commits_and_machines_of_its_rows():
    rows = [row("act", "A", 44), row("pi0", "A", 44, commit="def", minutes=30), row("smolvla", "A", 4)]
    rows += [row(policy, "B", 4, machine="Xeon") for policy in ("act", "pi0")]
    text = leaderboard.source(rows, leaderboard.parse([]))
    assert text.startswith(
        "AMD EPYC, threads: 1 (act, pi0 on scene B: Xeon, threads: 1), torch 2.13.0, commit abc, def."
    )
    assert "At most 30 minutes" in text


def test_publishing_adds_to_the_rows_of_earlier_runs(tmp_path, monkeypatch, capsys):
    published, page = tmp_path / "rows.json", tmp_path / "README.md"
    page.write_text("\n".join(leaderboard.MARKS))
    gpu = [row("act", "A", 50)]
    leaderboard.write_json({"CPU": [row("act", "A", 44), row("pi0", "A", 10)], "GPU": gpu}, published)
    (tmp_path / "pi0_A").mkdir()
    leaderboard.write_json(row("pi0", "A", 30), tmp_path / "pi0_A/result.json")
    monkeypatch.setattr(leaderboard, "reference", lambda name, actor, scene, episodes: STILL | {"policy": name})
    flags = ["--table", "--policies=pi0", "--scenes=A", f"--output_dir={tmp_path}", f"--published={published}"]
    monkeypatch.setattr("sys.argv", ["x", *flags, f"--publish={page}"])
    leaderboard.main()
    assert "| act | 44/50" in page.read_text() and "| pi0 | 30/50" in page.read_text()
    assert "vqbet, smolvla on scene A; act, act_dinov2" in page.read_text()
    rows = leaderboard.read_json(published)
    assert [r["policy"] for r in rows["CPU"]] == [leaderboard.EXPERT, "act", "pi0", leaderboard.STILL]
    assert rows["GPU"] == gpu


def test_the_table_of_the_readme_is_that_of_the_published_rows():
    args = leaderboard.parse([])
    for name, language in (("README.md", "en"), ("README.zh-CN.md", "zh")):
        text = leaderboard.text_of(leaderboard.read_json(leaderboard.PUBLISHED)["CPU"], args, language)
        assert text in (FILE.parents[1] / name).read_text("utf-8")


def test_the_table_of_what_is_finished_measures_nothing(tmp_path, monkeypatch, capsys):
    (tmp_path / "act_A").mkdir()
    leaderboard.write_json(row("act", "A", 44), tmp_path / "act_A/result.json")
    monkeypatch.setattr(leaderboard, "run", lambda *_: pytest.fail("something was measured"))
    monkeypatch.setattr(leaderboard, "reference", lambda name, actor, scene, episodes: STILL | {"scene": scene})
    page = tmp_path / "README.zh-CN.md"
    page.write_text("\n".join(leaderboard.MARKS))
    monkeypatch.setattr(
        "sys.argv",
        ["x", "--table", f"--output_dir={tmp_path}", f"--publish={page}", f"--published={tmp_path / 'rows.json'}"],
    )
    leaderboard.main()
    assert "| act | 44/50" in capsys.readouterr().out and "静止不动" in page.read_text()


@pytest.mark.parametrize(("minutes", "flags", "steps"), [(20, [], 3400), (5, [], 1500), (20, ["--fill"], 6000)])
def test_the_budget_is_a_ceiling_unless_it_shall_be_filled(minutes, flags, steps, tmp_path, monkeypatch):
    decoding = {"cpu_s": 200.0}
    prices = iter([decoding, {"cpu_s": 10.0}, {"cpu_s": 30.0}])  # 100 steps in between, so 0.2 s a step
    monkeypatch.setattr(leaderboard, "run", lambda command, log: next(prices))
    args = leaderboard.parse([f"--minutes={minutes}", *flags])
    assert leaderboard.choose_steps("act", "A", tmp_path, tmp_path, args)["steps"] == steps


def test_the_time_of_a_head_start_counts(tmp_path, monkeypatch):
    start, runs = {"cpu_s": 300.0, "wall_s": 1.0, "memory_gb": 2.0}, [{"cpu_s": s} for s in (200.0, 10.0, 110.0)]
    commands, prices = [], iter([start, *runs])
    monkeypatch.setattr(leaderboard, "run", lambda command, log: commands.append(command) or next(prices))
    args = leaderboard.parse(["--minutes=20"])  # 300 of 1200 s are spent, a step costs 1 s
    assert leaderboard.choose_steps("smolvla", "B", tmp_path, tmp_path, args)["steps"] == 900
    assert leaderboard.head_start("smolvla", "B", tmp_path, args) == (
        tmp_path / "start",
        {"cpu_s": 300.0} | {"wall_s": 1.0, "memory_gb": 2.0},
    )
    assert leaderboard.head_start("smolvla", "A", tmp_path, args)[0] is None
    assert commands[0][1].name == "pretrain_vlm.py"
    assert all(f"--policy.path={tmp_path / 'start'}" in command for command in commands[1:])


def test_the_table_replaces_what_stands_between_its_marks(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(f"before\n{leaderboard.MARKS[0]}\nold\n{leaderboard.MARKS[1]}\nafter\n")
    leaderboard.publish("new", page)
    assert page.read_text() == f"before\n{leaderboard.MARKS[0]}\nnew\n{leaderboard.MARKS[1]}\nafter\n"
    page.write_text("nothing")
    with pytest.raises(ValueError, match="no place"):
        leaderboard.publish("new", page)


@pytest.mark.parametrize(("policy", "scene"), [*((name, "A") for name in leaderboard.POLICIES), ("smolvla", "B")])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_policy_takes_its_settings(policy, scene, device, tmp_path):
    args = leaderboard.parse([f"--device={device}"])
    flags = leaderboard.train_command(policy, scene, tmp_path, tmp_path / "run", args)[2:]
    flags += leaderboard.schedule(policy, 9000)
    flags = [flag for flag in flags if not flag.startswith("--policy.device")]
    cfg = parse(TrainPipelineConfig, [*flags, *leaderboard.MEASURED.get(policy, []), "--policy.device=cpu"])
    assert cfg.policy.type == policy and cfg.steps == 9000
    cfg.validate()
    assert getattr(cfg.scheduler, "num_decay_steps", 9000) == 9000


def test_holding_still_is_measured_and_never_succeeds():
    still = leaderboard.reference("holds still", leaderboard.HoldStill(), "A", 2)
    assert (still["n_success"], still["n_episodes"]) == (0, 2)


def test_unknown_policies_are_refused(capsys):
    with pytest.raises(SystemExit):
        leaderboard.parse(["--policies=act,unknown"])
    assert "expected some of act" in capsys.readouterr().err


@pytest.mark.slow
def test_a_short_comparison_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    flags = ["leaderboard.py", "--policies=act", "--scenes=A", "--minutes=0.02", "--episodes=2", "--workers=1"]
    monkeypatch.setattr("sys.argv", [*flags, f"--output_dir={tmp_path}"])
    leaderboard.main()
    table = (tmp_path / "leaderboard.md").read_text()
    assert "/2 = " in table and (tmp_path / "act_A/report/report.html").is_file()
    before = (tmp_path / "act_A/cost.json").stat().st_mtime_ns
    leaderboard.main()
    assert (tmp_path / "act_A/cost.json").stat().st_mtime_ns == before
