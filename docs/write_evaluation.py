"""Puts the results of a report into docs/evaluation.md: `python docs/write_evaluation.py REPORT_FOLDER`."""

import re
import sys
from pathlib import Path

from PIL import Image

PAGE = Path(__file__).with_name("evaluation.md")
BEGIN, END = "<!-- figures: written by docs/write_evaluation.py -->", "<!-- end of figures -->"


def write(report: Path, page: Path = PAGE) -> None:
    """Replace what stands between the marks of `page` by the tables, plots and sheets of `report`."""
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{page} lacks the marks {BEGIN} and {END}")
    text = (report / "report.md").read_text("utf-8").removeprefix("# Evaluation\n")
    tables = text.partition("\n![")[0]
    shown = []
    for description, picture in re.findall(r"!\[(.*?)\]\((.*?)\)", text):
        name = f"pictures/evaluation-{Path(picture).stem}.webp"
        (page.parent / "pictures").mkdir(exist_ok=True)
        with Image.open(report / picture) as opened:
            opened.convert("RGB").save(page.parent / name, quality=88)
        shown.append(f"\n![{description}]({name})")
    written = "\n".join([tables.strip(), *shown])
    page.write_text(f"{before}{BEGIN}\n{written}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write(Path(sys.argv[1]))
