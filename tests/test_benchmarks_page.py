"""The page of benchmarks: a run replaces its own blocks and nothing else."""

import argparse
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def all_benchmarks():
    spec = importlib.util.spec_from_file_location("all_benchmarks", ROOT / "benchmarks" / "all.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_block_is_added_then_replaced_and_the_other_machines_stays(all_benchmarks):
    line = ["python", "benchmarks/x.py", "--peer-python", "/some/where/python"]
    page = f"before\n{all_benchmarks.PLACE}\nafter\n"
    for kind, output in (("cpu", "1 s"), ("gpu", "2 s"), ("cpu", "3 s")):
        new = all_benchmarks.block("x", "X", kind, line, output, "a machine")
        page = all_benchmarks.put(page, "x", kind, new)
    assert "1 s" not in page and page.index("3 s") < page.index("2 s")
    assert page.startswith("before\n") and page.endswith(f"{all_benchmarks.PLACE}\nafter\n")
    assert "/some/where" not in page and "--peer-python PEER/bin/python" in page


def test_a_table_is_shown_as_one_and_other_output_as_it_was_printed(all_benchmarks):
    table, lines = (all_benchmarks.block("x", "X", "cpu", ["x"], out, "here") for out in ("| a |\n|---|", "a  1 s"))
    assert "```" not in table and "\n\n| a |\n|---|\n<!--" in table and "```\na  1 s\n```" in lines


def test_only_runs_that_are_written_draw_a_plot(all_benchmarks):
    def draws(quick):
        args = argparse.Namespace(device="cpu", quick=quick, peer_python="")
        return [name for name, b in all_benchmarks.BENCHMARKS.items() if "--plot" in all_benchmarks.command_of(b, args)]

    assert draws(quick=False) == ["curves"] and draws(quick=True) == []


def test_a_page_without_a_place_is_refused(all_benchmarks):
    with pytest.raises(ValueError, match="neither the block"):
        all_benchmarks.put("nothing", "x", "cpu", "new")


def test_the_page_of_the_repository_has_the_place(all_benchmarks):
    assert all_benchmarks.PLACE in all_benchmarks.PAGE.read_text("utf-8")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("quick", [False, True])
def test_every_command_names_a_script_that_exists(all_benchmarks, device, quick):
    args = argparse.Namespace(device=device, quick=quick, peer_python="PEER")
    for benchmark in all_benchmarks.BENCHMARKS.values():
        line = all_benchmarks.command_of(benchmark, args)
        assert (ROOT / line[1]).is_file() and ("--peer-python" in line) is benchmark.peer


def test_a_benchmark_that_fails_or_takes_too_long_says_so(all_benchmarks, tmp_path, monkeypatch):
    monkeypatch.setattr(all_benchmarks, "ROOT", tmp_path)
    (tmp_path / "bad.py").write_text("import sys; sys.exit(3)")
    (tmp_path / "slow.py").write_text("import threading; threading.Event().wait(60)")
    with pytest.raises(RuntimeError, match="ended with 3"):
        all_benchmarks.run(["python", "bad.py"], 5)
    with pytest.raises(RuntimeError, match="took more than"):
        all_benchmarks.run(["python", "slow.py"], 0.02)
