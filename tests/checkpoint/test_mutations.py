"""Damaged files through the whole loader: only declared errors come out, in bounded memory and time."""

import re
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(*words):
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, cwd=BENCHMARKS)
    return done.returncode, done.stdout + done.stderr


def test_a_thousand_damaged_files_are_read_or_refused_by_name():
    status, told = run("mutations.py", 1000)
    assert re.search(r"1,000 cases in \d+ s, load of \d+ cores \d", told), told
    assert status == 0, told


FAULTS = {
    "{}['key']": "KeyError: 'key'",
    "bytearray(300 << 20)": "MemoryError",
    "mutations.torch.ones(300 << 18)": "can't allocate memory",
    "sys.exit('gone')": "SystemExit: gone",
    "while True: pass": "TooSlow: more than 1 s",
}
PLANTED = f"""
import sys
import mutations

mutations.CASE_SECONDS = 1
for fault in {list(FAULTS)}:
    def load(folder, damaged):
        if damaged.read_bytes() != sound[damaged.name]:
            exec(fault)

    def make(folder):
        mutations.embedding_file(folder)
        sound.update((path.name, path.read_bytes()) for path in folder.iterdir())

    sound = {{}}
    mutations.SUBJECTS = {{"planted": mutations.Subject(make, load, weight=1)}}
    sys.argv = ["mutations.py", "1"]
    print("status", mutations.main())
"""


def test_every_kind_of_defect_is_found_when_it_is_planted():
    _, told = run("-c", PLANTED)
    for fault in FAULTS.values():
        assert fault in told
    assert told.count("status 1") == told.count("planted: 0 loaded, 0 refused, 1 fault") == len(FAULTS)
