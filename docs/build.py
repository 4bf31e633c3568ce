"""Build the documentation site: `python docs/build.py [--serve]` writes it to site/, and fails on any warning.

The pages are those under docs/ as they are, read on a code host too. This script copies them to a temporary folder with
README.md as the first page, CHANGELOG.md and CONTRIBUTING.md beside them, and turns the links that leave docs/ into
links of the site: to a page where there is one, else to a copy of the file.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Pages of the site that are files of the repository's root.
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
LINK = re.compile(r"(?<!!)(!?\[[^\]\n]*\]\()([^)\s]+)(\))")


def place(path: Path) -> Path:
    """Return where a file of the repository lies in the site, relative to its root. path: relative to the repository's.

    Raises ValueError for a folder, which no site can show: link to a file in it.
    """
    if not (ROOT / path).is_file():
        kind = "a folder" if (ROOT / path).exists() else "nothing there"
        raise ValueError(f"expected a link to a file of the repository, found {kind}: {path}; link to a file")
    if path.as_posix() in PAGES:
        return Path(PAGES[path.as_posix()])
    if path.parts[0] == "docs":
        return Path(*path.parts[1:])
    if path.suffix in (".md", ".ipynb") and path.parts[0] == "examples":
        return path
    return Path("files") / path.with_name(
        f"{path.name}.txt" if path.suffix in (".py", ".yaml", ".sh", "") else path.name
    )


def rewrite(text: str, source: Path, linked: set[Path]) -> str:
    """Return a page's Markdown with its relative links as they are in the site.

    source: of the page, relative to the repository.  linked: gets the files outside docs/ that are to be copied.
    """
    here = place(source).parent

    def link(found: re.Match) -> str:
        target, _, anchor = found[2].partition("#")
        if not target or re.match(r"[a-z]+:", target):
            return found[0]
        path = Path(os.path.normpath(source.parent / target))
        try:
            there = place(path)
        except ValueError as error:
            raise SystemExit(f"{source}: {error}") from None
        if path.parts[0] != "docs" and path.as_posix() not in PAGES:
            linked.add(path)
        return f"{found[1]}{Path(os.path.relpath(there, here)).as_posix()}{'#' * bool(anchor)}{anchor}{found[3]}"

    return LINK.sub(link, text)


def stage(folder: Path) -> None:
    """Write all pages, pictures and linked files of the site to `folder`."""
    pages = [Path(name) for name in PAGES]
    pages += [path.relative_to(ROOT) for path in sorted((ROOT / "docs").rglob("*")) if path.is_file()]
    linked: set[Path] = set()
    done: set[Path] = set()
    while waiting := [path for path in (*pages, *sorted(linked)) if path not in done]:
        for path in waiting:
            done.add(path)
            if path.suffix == ".py" or "__pycache__" in path.parts:
                continue
            there = folder / place(path)
            there.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".md":
                there.write_text(rewrite((ROOT / path).read_text(encoding="utf-8"), path, linked), encoding="utf-8")
            else:
                shutil.copy(ROOT / path, there)


def build(site: Path, serve: bool = False) -> int:
    """Build the site into `site`, which is replaced, or serve it; return the exit status of the generator."""
    with tempfile.TemporaryDirectory() as folder:
        stage(Path(folder) / "docs")
        settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
        settings = settings.replace("paths: [.]", f"paths: ['{ROOT}']").replace("[docs/doc", f"['{ROOT}/docs/doc")
        settings = settings.replace("docstrings.py]", "docstrings.py']")
        (Path(folder) / "mkdocs.yml").write_text(settings, encoding="utf-8")
        command = ["serve"] if serve else ["build", "--clean", "--strict"]
        status = subprocess.run([sys.executable, "-m", "zensical", *command], cwd=folder).returncode
        if not status and not serve:
            shutil.rmtree(site, ignore_errors=True)
            shutil.move(Path(folder) / "site", site)
        return status


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the documentation site into site/.")
    parser.add_argument("--serve", action="store_true", help="show it at a local address")
    parser.add_argument("--out", type=Path, default=ROOT / "site")
    options = parser.parse_args()
    raise SystemExit(build(options.out, options.serve))


if __name__ == "__main__":
    main()
