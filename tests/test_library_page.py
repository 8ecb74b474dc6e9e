"""The page on the library: its programs run as they stand."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "library.md"


@pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")
def test_the_programs_of_the_page_run_one_after_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 10
    names = {}
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), names)
    assert {path.name for path in tmp_path.iterdir()} == {"0.png", "1.png", "theirs.json"}
    assert names["pixels"].shape == (1, 3, 256, 256)
    assert names["finished"].pixels.shape == (1, 3, 256, 256)
