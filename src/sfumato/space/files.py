"""Files of meshes and point clouds: glTF, OBJ, STL and PLY, by trimesh, and volumes in .npz."""

import io
import warnings
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from sfumato.errors import UsageError
from sfumato.files import regular, replace_atomically
from sfumato.space import interactive
from sfumato.space.formats import check_mesh_suffix, check_points_suffix, check_written_suffix
from sfumato.space.libraries import library
from sfumato.space.mesh import MAX_FACES, Mesh, PointCloud, without_degenerate
from sfumato.space.voxels import DistanceVolume

MAX_BYTES = 512 << 20
"""The most that is read of a mesh's file."""


def write_mesh(mesh: Mesh, path: Path) -> None:
    """Write `mesh` in the format that the suffix names; see `formats.WRITTEN`.

    PLY has the colours of vertices, STL none. An .npz is the volume of a closed mesh, with `distances`,
    `colours`, `centre` and `extent` as in `DistanceVolume`. Raises `UsageError` for another suffix, or for an
    open mesh as a volume, and `OutputError` where the file cannot be written.
    """
    check_written_suffix(path)
    suffix = path.suffix.lower()
    if suffix == ".npz":
        _write_volume(DistanceVolume.of_mesh(mesh), path)
        return
    made = _for_trimesh(mesh, f"{path.stem}-texture", textured=suffix in (".gltf", ".obj"))
    content: bytes
    if suffix == ".glb":
        content = glb(mesh, path.stem)
    elif suffix == ".html":
        content = interactive.page(glb(mesh, path.stem), path.stem, closed=mesh.is_watertight).encode()
    elif suffix == ".gltf":
        files = library("trimesh.exchange.gltf").export_gltf(
            made.scene(), include_normals=True, embed_buffers=True
        )
        content = files["model.gltf"]
    elif suffix == ".obj":
        text, beside = library("trimesh.exchange.obj").export_obj(
            made, include_normals=True, return_texture=True, mtl_name=f"{path.stem}.mtl"
        )
        for name, part in beside.items():
            with replace_atomically(path.parent / name) as file:
                file.write(part)
        content = text.encode()
    else:
        content = made.export(file_type=suffix[1:])
    with replace_atomically(path) as file:
        file.write(content)


def glb(mesh: Mesh, name: str) -> bytes:
    """A mesh called `name` as a binary glTF."""
    made = _for_trimesh(mesh, f"{name}-texture", textured=True)
    content: bytes = library("trimesh.exchange.gltf").export_glb(made.scene(), include_normals=True)
    return content


def read_mesh(path: Path) -> Mesh:
    """The mesh in a file, all of its parts as one. Raises `UsageError` for whatever cannot be had."""
    check_mesh_suffix(path)
    trimesh = library("trimesh")
    try:
        if (size := regular(path).stat().st_size) > MAX_BYTES:
            raise UsageError(f"{path} has {size:,} bytes: at most {MAX_BYTES:,} are read")
        if path.suffix.lower() == ".npz":
            return _read_volume(path).mesh()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = trimesh.load_scene(str(path), process=False).to_mesh()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    except UsageError:
        raise
    except Exception as error:  # its readers raise nearly every kind on damaged files
        raise UsageError(f"{path} is no mesh that can be read: {error}") from error
    if not len(getattr(loaded, "faces", ())):
        raise UsageError(f"{path} has no triangles")
    try:
        return _of_trimesh(loaded)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _write_volume(volume: DistanceVolume, path: Path) -> None:
    with replace_atomically(path) as file:
        np.savez_compressed(file, **vars(volume))


def _read_volume(path: Path) -> DistanceVolume:
    """The volume in a file. Raises `UsageError` where it holds none, else what numpy raises."""
    with zipfile.ZipFile(path) as held:
        if (size := sum(part.file_size for part in held.infolist())) > MAX_BYTES:
            raise UsageError(f"{path} holds {size:,} bytes: at most {MAX_BYTES:,} are read")
    with np.load(path, allow_pickle=False) as arrays:
        names = [each.name for each in fields(DistanceVolume)]
        if missing := [name for name in names if name not in arrays]:
            raise UsageError(f"{path} is no volume: it has no {', '.join(missing)}")
        distances, colours, centre, extent = (arrays[name] for name in names)
    shape = distances.shape
    if len(shape) != 3 or colours.shape != (*shape, 3) or centre.shape != (3,) or extent.shape != ():
        raise UsageError(
            f"{path} is no volume: it must have distances (Z, Y, X), colours (Z, Y, X, 3), a centre (3,) and "
            "an extent, one number"
        )
    numbers = np.concatenate([np.ravel(each).astype(np.float64) for each in (distances, centre, extent)])
    if not np.isfinite(numbers).all() or extent <= 0:
        raise UsageError(
            f"{path} is no volume: distances, centre and extent must be finite, and extent more than 0"
        )
    return DistanceVolume(
        distances.astype(np.float32), colours.astype(np.uint8), centre.astype(np.float64), float(extent)
    )


def write_points(cloud: PointCloud, path: Path) -> None:
    """Write points as a binary PLY, or as an .npz with `points`, `normals` and `colours`."""
    check_points_suffix(path)
    buffer = io.BytesIO()
    if path.suffix.lower() == ".npz":
        np.savez(buffer, points=cloud.points, normals=cloud.normals, colours=cloud.colours)
    else:
        names = [*(("float", name) for name in ("x", "y", "z", "nx", "ny", "nz"))]
        names += [("uchar", name) for name in ("red", "green", "blue")]
        lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(cloud.points)}"]
        lines += [*(f"property {kind} {name}" for kind, name in names), "end_header", ""]
        buffer.write("\n".join(lines).encode())
        rows = np.empty(len(cloud.points), [("f", "<f4", 6), ("b", "u1", 3)])
        rows["f"] = np.concatenate([cloud.points, cloud.normals], axis=1)
        rows["b"] = cloud.colours
        buffer.write(rows.tobytes())
    with replace_atomically(path) as file:
        file.write(buffer.getvalue())


def _for_trimesh(mesh: Mesh, name: str, *, textured: bool) -> Any:
    """As a mesh of trimesh's, with its texture, called `name`, if `textured`; or the vertices' colours."""
    trimesh = library("trimesh")
    own: dict[str, Any] = {"vertex_colors": mesh.vertex_colours}
    if textured and mesh.uv is not None and mesh.texture is not None:
        material = trimesh.visual.material.PBRMaterial(
            name=name,
            baseColorTexture=PIL.Image.fromarray(mesh.texture),
            metallicFactor=0.0,
            roughnessFactor=1.0,
        )
        own = {"visual": trimesh.visual.TextureVisuals(uv=mesh.uv, material=material)}
    return trimesh.Trimesh(
        mesh.vertices, mesh.faces, vertex_normals=mesh.normals, process=False, validate=False, **own
    )


def _of_trimesh(loaded: Any) -> Mesh:
    vertices, faces = np.asarray(loaded.vertices, np.float32), np.asarray(loaded.faces, np.int64)
    if len(faces) > MAX_FACES:
        raise UsageError(f"the mesh has {len(faces):,} triangles: at most {MAX_FACES:,} are read")
    visual = loaded.visual
    uv = getattr(visual, "uv", None)
    material = getattr(visual, "material", None)
    picture = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    if uv is not None and picture is not None and len(uv) == len(vertices):
        texture = np.asarray(picture.convert("RGB"), np.uint8)
        return Mesh(vertices, faces, np.asarray(uv, np.float32), texture)
    if getattr(visual, "kind", None) == "vertex":
        return Mesh(vertices, faces, colours=np.asarray(visual.vertex_colors, np.uint8)[:, :3])
    if (flat := getattr(material, "main_color", None)) is not None:
        colours = np.broadcast_to(np.asarray(flat, np.uint8)[:3], vertices.shape)
        return Mesh(vertices, faces, colours=np.ascontiguousarray(colours))
    return without_degenerate(Mesh(vertices, faces))
