"""The files of the operator's page, read once: what is not among them cannot be asked for."""

import hashlib
from pathlib import Path

import msgspec

FOLDER = Path(__file__).parent / "web"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


class Page(msgspec.Struct, frozen=True):
    content: bytes
    kind: str
    etag: str


class Pages:
    """Every file by its path under the folder."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.files = {
            file.relative_to(folder).as_posix(): _read(file)
            for file in sorted(folder.rglob("*"))
            if file.suffix in KINDS and file.is_file()
        }

    def find(self, path: str) -> Page | None:
        return self.files.get(path)


def _read(file: Path) -> Page:
    content = file.read_bytes()
    return Page(content, KINDS[file.suffix], f'"{hashlib.sha256(content).hexdigest()[:16]}"')
