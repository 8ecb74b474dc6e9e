"""Ten subjects that no training has seen, each drawn by this script in five views.

A subject is an ordinary thing with marks of its own (colours, a pattern, a face), so that a person can tell
whether a picture shows this one or only one of its kind. A view turns, moves and scales it before another
background.

    python benchmarks/subjects.py subjects        (subjects/mug/1.png … subjects/shoe/5.png)
"""

import argparse
import io
from pathlib import Path

import resvg_py
from PIL import Image

VIEWS = (
    (0, 0.92, 0, 0, "#ffffff"),
    (-14, 0.78, -6, 4, "#ffffff"),
    (12, 0.84, 5, -3, "#dbeafe"),
    (-5, 0.70, 8, 7, "#ffffff"),
    (20, 0.88, -3, 2, "#fef3c7"),
)
"""Turned by so many degrees, scaled, moved right and down in hundredths of the side, and the background."""
SIDE = 256

SUBJECTS = {
    "mug": """
<path d="M68 36h12a14 14 0 0 1 0 32H66" fill="none" stroke="#0f766e" stroke-width="7"/>
<path d="M18 22h52v52a10 10 0 0 1-10 10H28a10 10 0 0 1-10-10z" fill="#14b8a6"/>
<path d="M18 30h52v9H18zM18 66h52v8H18z" fill="#f97316"/>
<path d="m44 41 3.5 7.6 8.3.9-6.2 5.6 1.8 8.2-7.4-4.2-7.4 4.2 1.8-8.2-6.2-5.6 8.3-.900z" fill="#fde047"/>
""",
    "monster": """
<path d="m50 4 8 20H42z" fill="#facc15"/>
<ellipse cx="50" cy="56" rx="32" ry="36" fill="#7c3aed"/>
<ellipse cx="50" cy="68" rx="18" ry="18" fill="#c4b5fd"/>
<circle cx="33" cy="40" r="8" fill="#fff"/>
<circle cx="50" cy="34" r="8" fill="#fff"/>
<circle cx="67" cy="40" r="8" fill="#fff"/>
<circle cx="33" cy="41" r="3.5"/><circle cx="50" cy="35" r="3.5"/><circle cx="67" cy="41" r="3.5"/>
<path d="M36 56q14 14 28 0z" fill="#be123c"/><path d="m42 57 3 5 3-5zM53 57l3 5 3-5z" fill="#fff"/>
<path d="M28 88h14v8H28zM58 88h14v8H58z" fill="#4c1d95"/>
""",
    "backpack": """
<path d="M36 16q14-16 28 0" fill="none" stroke="#14532d" stroke-width="5"/>
<rect x="20" y="14" width="60" height="76" rx="18" fill="#16a34a"/>
<rect x="27" y="56" width="46" height="28" rx="8" fill="#dc2626"/>
<path d="M27 66h46" stroke="#fecaca" stroke-width="3"/>
<circle cx="39" cy="38" r="9" fill="#fff"/><circle cx="61" cy="38" r="9" fill="#fff"/>
<circle cx="39" cy="38" r="4"/>
<circle cx="61" cy="38" r="4"/>
<path d="m50 42-4 8h8z" fill="#f59e0b"/>
""",
    "robot": """
<path d="M50 4v14" stroke="#334155" stroke-width="4"/><circle cx="50" cy="6" r="5" fill="#ef4444"/>
<rect x="24" y="16" width="52" height="34" rx="8" fill="#94a3b8"/>
<rect x="31" y="24" width="38" height="14" rx="7" fill="#0f172a"/>
<circle cx="41" cy="31" r="4.5" fill="#22d3ee"/><circle cx="59" cy="31" r="4.5" fill="#22d3ee"/>
<rect x="30" y="53" width="40" height="32" rx="6" fill="#e11d48"/>
<path d="M50 78 40 67a5.5 5.5 0 0 1 10-5 5.5 5.5 0 0 1 10 5z" fill="#fff"/>
<rect x="18" y="55" width="9" height="24" rx="4" fill="#64748b"/>
<rect x="73" y="55" width="9" height="24" rx="4" fill="#64748b"/>
<rect x="34" y="86" width="11" height="10" fill="#475569"/>
<rect x="55" y="86" width="11" height="10" fill="#475569"/>
""",
    "cat": """
<path d="M74 80q20-6 14-26" fill="none" stroke="#1f2937" stroke-width="7" stroke-linecap="round"/>
<ellipse cx="50" cy="72" rx="27" ry="22" fill="#1f2937"/>
<ellipse cx="50" cy="78" rx="14" ry="14" fill="#f8fafc"/>
<path d="m24 12 14 14H24zM76 12v14H62z" fill="#1f2937"/>
<circle cx="50" cy="37" r="26" fill="#1f2937"/>
<path d="M50 26q16 10 12 26a20 20 0 0 1-24 0q-4-16 12-26z" fill="#f8fafc"/>
<circle cx="39" cy="34" r="5" fill="#84cc16"/><circle cx="61" cy="34" r="5" fill="#84cc16"/>
<circle cx="39" cy="34" r="2"/>
<circle cx="61" cy="34" r="2"/>
<path d="m50 46-3-4h6z" fill="#fb7185"/>
<path d="M28 58h44v7H28z" fill="#ef4444"/><circle cx="50" cy="66" r="5" fill="#facc15"/>
""",
    "teapot": """
<path d="M76 44q18-2 12 18-4 10-16 10" fill="none" stroke="#1e3a8a" stroke-width="6"/>
<path d="M24 62 6 40l8-4 16 12z" fill="#1e3a8a"/>
<ellipse cx="50" cy="60" rx="30" ry="27" fill="#f8fafc" stroke="#1e3a8a" stroke-width="3"/>
<path d="M32 38q18-16 36 0z" fill="#1e3a8a"/><circle cx="50" cy="27" r="5" fill="#dc2626"/>
<g fill="#2563eb"><circle cx="36" cy="54" r="4.5"/>
<circle cx="50" cy="50" r="4.5"/>
<circle cx="64" cy="54" r="4.5"/>
<circle cx="38" cy="70" r="4.5"/>
<circle cx="62" cy="70" r="4.5"/>
</g><circle cx="50" cy="65" r="6" fill="#dc2626"/>
<path d="M34 84h32v5H34z" fill="#1e3a8a"/>
""",
    "car": """
<path d="M24 46q6-22 20-22h20q12 0 18 22z" fill="#38bdf8"/>
<path d="M49 24h4v22h-4z" fill="#ec4899"/>
<rect x="6" y="44" width="88" height="26" rx="10" fill="#ec4899"/>
<path d="M6 54h88v6H6z" fill="#fff"/><circle cx="50" cy="57" r="11" fill="#fff"/>
<path d="M47 51h4v13h-4z" fill="#111827"/>
<circle cx="27" cy="71" r="12" fill="#111827"/><circle cx="73" cy="71" r="12" fill="#111827"/>
<circle cx="27" cy="71" r="5" fill="#facc15"/><circle cx="73" cy="71" r="5" fill="#facc15"/>
""",
    "hat": """
<path d="M26 64 50 8l24 56z" fill="#4338ca"/><circle cx="50" cy="9" r="7" fill="#f472b6"/>
<g fill="#fde047"><circle cx="49" cy="34" r="4"/>
<circle cx="41" cy="50" r="4"/>
<circle cx="58" cy="48" r="4"/>
</g>
<path d="M25 58h50l3 10H22z" fill="#f472b6"/>
<ellipse cx="50" cy="74" rx="42" ry="12" fill="#4338ca"/>
<ellipse cx="50" cy="71" rx="29" ry="6" fill="#f472b6"/>
""",
    "fish": """
<path d="m72 50 24-20v40z" fill="#f59e0b"/><path d="M40 28q10-18 24-8l-6 12z" fill="#0ea5e9"/>
<ellipse cx="44" cy="50" rx="36" ry="25" fill="#0ea5e9"/>
<path d="M34 27h9v46h-9zM52 28h9v43h-9z" fill="#f59e0b"/>
<circle cx="22" cy="44" r="7" fill="#fff"/><circle cx="21" cy="44" r="3.5"/>
<path d="M10 56q8 6 14 0" fill="none" stroke="#7f1d1d" stroke-width="3"/>
""",
    "shoe": """
<path d="M8 40q14 10 28-8l14 18 36 8q10 4 8 16H8z" fill="#84cc16"/>
<path d="M6 74h90v9a4 4 0 0 1-4 4H10a4 4 0 0 1-4-4z" fill="#fff" stroke="#4d7c0f" stroke-width="2"/>
<path d="M14 50q12 4 22-6l4 10q-14 12-26 10z" fill="#7e22ce"/>
<path d="m44 46 8-6M50 52l8-6M57 56l8-6" stroke="#7e22ce" stroke-width="4" stroke-linecap="round"/>
<path d="m74 58 12 4-9 5z" fill="#7e22ce"/>
""",
}
"""The drawing of each, by the class that it belongs to, in a square of 100."""


def drawn(subject: str, view: int) -> Image.Image:
    """View `view` of `subject`, counted from 0: (SIDE, SIDE) in RGB."""
    degrees, scale, right, down, background = VIEWS[view]
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100" width="{SIDE}" height="{SIDE}">'
        f'<rect width="100" height="100" fill="{background}"/>'
        f'<g transform="translate({50 + right} {50 + down}) rotate({degrees}) scale({scale})">'
        f'<g transform="translate(-50 -50)">'
        f"{SUBJECTS[subject]}</g></g></svg>"
    )
    return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg)))).convert("RGB")


def write(folder: Path) -> None:
    """Every view of every subject as `folder`/SUBJECT/N.png."""
    for subject in SUBJECTS:
        (folder / subject).mkdir(parents=True, exist_ok=True)
        for view in range(len(VIEWS)):
            drawn(subject, view).save(folder / subject / f"{view + 1}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    write(parser.parse_args().folder)
