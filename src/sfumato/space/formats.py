"""Which files of shapes are written and read, told by their suffix. It imports no library."""

from pathlib import Path

from sfumato.errors import UsageError

MESHES = (".glb", ".gltf", ".obj", ".stl", ".ply", ".npz")
"""A .gltf holds its buffers and texture, an .obj has its material and texture in files beside it, and an .npz
is a volume."""
WRITTEN = (*MESHES, ".html")
"""An .html is a page in which the mesh can be turned."""
POINTS = (".ply", ".npz")


def check_mesh_suffix(path: Path) -> None:
    """Raise `UsageError` for a suffix that names no format of meshes."""
    _check(path, MESHES, "a mesh is a file")


def check_written_suffix(path: Path) -> None:
    """Raise `UsageError` for a suffix of no format in which meshes are written."""
    _check(path, WRITTEN, "a mesh is written as")


def check_points_suffix(path: Path) -> None:
    """Raise `UsageError` for a suffix that names no format of point clouds."""
    _check(path, POINTS, "points are written as")


def _check(path: Path, known: tuple[str, ...], rule: str) -> None:
    if path.suffix.lower() not in known:
        wrong = f"unknown suffix {path.suffix!r}" if path.suffix else "no suffix"
        raise UsageError(f"{str(path)!r} has {wrong}; {rule} {', '.join(known)}")
