"""What the commands share that draw several pictures into one file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from sfumato import files, viewer
from sfumato.cli import console, target
from sfumato.cli.help import OUTPUT
from sfumato.cli.options import OptionGroup, Quiet, option
from sfumato.errors import warn
from sfumato.files import replace_atomically
from sfumato.request import Request

if TYPE_CHECKING:
    from sfumato.image import Image
    from sfumato.metadata import Record


@dataclass(frozen=True)
class SeriesOptions:
    """Where the file goes, and the single pictures."""

    output: Annotated[
        str | None, option("-o, --output FILE", OUTPUT, "The file. Default: named after the prompts, here.")
    ] = None
    keep: Annotated[
        Path | None,
        option("--keep FOLDER", OUTPUT, "Save the single pictures here too. Default: none."),
    ] = None
    show: Annotated[bool, option("--open", OUTPUT, "Open the file when it is done.")] = False
    no_embed: Annotated[
        bool, option("--no-embed", OUTPUT, "Keep the content of the pictures given out of the records.")
    ] = False
    as_json: Annotated[bool, option("--json", OUTPUT, "Print one line of JSON.")] = False
    quiet: Quiet = False

    def place(self, name: str, request: Request, *, in_folder: bool = False) -> Path:
        """Where the file goes, called `name` unless it is given; its folder is made, and `keep`.

        `in_folder`: it is a folder of files, which whoever writes it checks.

        Raises `OutputError` where it cannot be written. A file that is there is replaced only if it is named,
        and no picture that the `request` begins from.
        """
        path = Path(name) if self.output is None else Path(self.output).expanduser()
        target.make_folder(path.parent)
        if in_folder:
            self._make_kept()
            return path
        place = target.Target(path.parent, path.name, 1, overwrite=self.output is not None)
        place.spare("", 0, {each.data for each in request.inputs.values() if each.data is not None})
        path = place.path(1, "", 0)
        files.check_file(path)
        self._make_kept()
        return path

    def _make_kept(self) -> None:
        if self.keep is not None:
            target.make_folder(self.keep)

    def save_kept(self, image: "Image", number: int, total: int) -> None:
        """Save picture `number`, from 1, of `total` among the single ones, if they are kept."""
        if self.keep is not None:
            image.save(self.keep / f"{number:0{len(str(total))}}.png", embed=not self.no_embed)

    def finish(self, path: Path, content: bytes, facts: dict[str, Any]) -> None:
        """Write the file, and print where it is."""
        with replace_atomically(path) as file:
            file.write(content)
        self.tell(path, facts)

    def tell(self, path: Path, facts: dict[str, Any]) -> None:
        """Print where the file is that was written, and open it if that is asked."""
        console.result(console.as_json({"path": str(path), **facts}) if self.as_json else str(path))
        if self.show:
            if why := viewer.why_none():
                warn(f"{path} is saved, not shown: {why}")
            else:
                viewer.show(path)


Output = Annotated[SeriesOptions, OptionGroup.of(SeriesOptions)]


def described(records: Sequence["Record"]) -> list[dict[str, Any]]:
    """What `--json` says of single pictures: their records, without the content of what they began from."""
    return [record.for_file("PNG", embed=False).model_dump(mode="json") for record in records]
