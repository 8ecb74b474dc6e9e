"""Makes the vocabulary that ships with the package, from the file in which OpenAI published it.

    pip download --no-deps open_clip_torch==3.3.0
    python recipes/clip_vocabulary.py open_clip_torch-3.3.0-py3-none-any.whl

The published list holds 262,144 merges, of which CLIP was trained with the first 48,894. Run twice, it writes
the same bytes.
"""

import gzip
import hashlib
import sys
import zipfile
from pathlib import Path

PUBLISHED = "open_clip/bpe_simple_vocab_16e6.txt.gz"
SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
MERGES = 48_894
TARGET = Path(__file__).parents[1] / "src/sfumato/models/clip/merges.txt.gz"


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        published = wheel.read(PUBLISHED)
    if hashlib.sha256(published).hexdigest() != SHA256:
        raise SystemExit(f"{PUBLISHED} is not the file that OpenAI published")
    version, *lines = gzip.decompress(published).decode("utf-8").split("\n")
    if not version.startswith('"bpe_simple_vocab_16e6.txt#version'):
        raise SystemExit(f"the first line is {version!r}")
    raw = ("\n".join(lines[:MERGES]) + "\n").encode("utf-8")
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_bytes(gzip.compress(raw, compresslevel=9, mtime=0))
    print(f"{TARGET}: {MERGES:,} merges, {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
