"""`sfumato data`: training data, made from what others published."""

from pathlib import Path

from sfumato.cli import console


def icons(folder: Path, size: int, offline: bool, quiet: bool) -> int:
    """Fetch, pack and render the icon set into `folder`; the exit status."""
    from sfumato.data import pack, render

    meter = console.Meter(quiet)
    packed = folder / "pack"
    with meter.shown("icons"):
        if not offline and not (packed / pack.INDEX).is_file():
            pack.build(packed, folder / "npm", lambda doing: None if quiet else console.complain(doing))
        told = 0

        def progress(done: int, total: int) -> None:
            nonlocal told
            for _ in range(told, done):
                meter.advance("rendering", total)
            told = done

        rendered = render.render(packed, folder, size, progress)
    line = (
        f"{folder}: {rendered.pictures:,} pictures rendered, {rendered.broken:,} drawings left out as broken"
    )
    if rendered.missing:
        line += f", {len(rendered.missing)} parts of the pack are not there"
    console.result(line)
    return 0
