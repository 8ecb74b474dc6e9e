"""What the benchmarks share: nothing measured is lost, and pages are written between their marks only."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from measuring import Table, machine, medians, processor, write

STOPPED = """
import os, signal
from measuring import medians
rounds = iter(range(3))
theirs = lambda: next(rounds) == 2 and os.kill(os.getpid(), signal.SIGKILL)
medians({"ours": lambda: None, "theirs": theirs}, 5)
"""


def test_a_benchmark_that_is_killed_has_printed_every_time_that_it_measured():
    folder = Path(__file__).parents[1] / "benchmarks"
    command = [sys.executable, "-c", STOPPED]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    told = re.sub(r"\d+\.\d+", "#", done.stdout)
    assert done.returncode < 0
    full = "ours # s, theirs # s, load of # cores #"
    assert re.sub(r"of \d+ cores", "of # cores", told).splitlines() == [
        f"  warm-up: {full}",
        f"  round 1 of 5: {full}",
        "  round 2 of 5: ours # s,",
    ]


def test_medians_leave_the_warm_up_out_and_what_is_done_before_a_run():
    now = [0.0]
    lengths = iter([100.0, 3.0, 1.0, 2.0])

    def run():
        now[0] += next(lengths)

    def before():
        now[0] += 1000

    assert medians({"ours": run}, 3, clock=lambda: now[0], before=before) == {"ours": 2.0}


def test_the_machine_is_told_by_its_processors_name_and_the_threads_in_use():
    assert machine("cpu").startswith(f"{processor()}, ")
    assert "threads; torch " in machine("cpu")


def test_a_table_is_written_between_the_pages_marks_and_nowhere_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "before\n<!-- speed: written by benchmarks/speed.py -->\nold\n<!-- end of speed -->\nafter\n"
    )
    write("new", page, "speed")
    assert page.read_text().splitlines()[1:4] == [
        "<!-- speed: written by benchmarks/speed.py -->",
        "new",
        "<!-- end of speed -->",
    ]
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith("after\n")
    with pytest.raises(SystemExit, match="lacks the marks"):
        write("new", page, "memory")


def test_a_table_keeps_every_row_in_its_page_when_it_is_measured(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("<!-- speed: written by benchmarks/speed.py -->\nold\n<!-- end of speed -->\n")
    table = Table("speed", ["| what |", "|---|"], page)
    assert "old" in page.read_text()
    table.add("| first |")
    assert page.read_text().splitlines()[1:-1] == ["| what |", "|---|", "| first |"]
    table.add("| second |")
    assert page.read_text().splitlines()[3:-1] == ["| first |", "| second |"]
    assert capsys.readouterr().out.splitlines() == ["| what |", "|---|", "| first |", "| second |"]
    with pytest.raises(SystemExit, match="lacks the marks"):
        Table("memory", [], page)


def test_a_processors_table_is_written_anew_and_those_of_others_stay(tmp_path):
    page, here = tmp_path / "page.md", machine("cpu")
    other = "Another Processor (no bfloat16 instructions), 4 threads; torch 2.11.0.\n\n| theirs |"
    old = f"{here}.\n\n| old |\n\n{other}"
    page.write_text(f"<!-- speed: written by benchmarks/speed.py -->\n{old}\n<!-- end of speed -->\n")
    table = Table("speed", [f"{here}.", "", "| new |"], page, beside=True)
    table.add("| row |")
    table.add("| second |")
    assert page.read_text().splitlines()[1:-1] == [
        *(f"{here}.", "", "| new |", "| row |", "| second |", ""),
        *other.splitlines(),
    ]
