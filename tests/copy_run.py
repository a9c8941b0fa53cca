"""Copies the text below the ruled line to all papers. By hand, after it has been edited.

    python tests/copy_run.py           train.py's from dcgan/, and from stylegan/ for torchrun's
    python tests/copy_run.py --check   only names what differs; the exit code says whether any does

dcgan/ has the text of a run in one process, stylegan/ that of the papers which torchrun starts, too
(they import torch.distributed). sample.py has one text for all.
"""
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINE = "# " + "-" * 94 + "\n"  # the ruled line


def split(path: Path) -> tuple[str, str]:
    """What stands above the ruled line, and what begins with it."""
    above, line, below = path.read_text().partition(LINE)
    return above, line + below


def source(path: Path) -> Path:
    """The file that this one has its text below the line from."""
    several = path.name == "train.py" and "import torch.distributed" in split(path)[0]
    return ROOT / ("stylegan" if several else "dcgan") / path.name


def first_difference(path: Path) -> str:
    """The first line below the ruled line that is not its source's, or nothing."""
    ours, theirs = (split(p)[1].splitlines() for p in (path, source(path)))
    start = split(path)[0].count("\n")
    for i in range(max(len(ours), len(theirs))):
        if ours[i:i + 1] != theirs[i:i + 1]:
            return f"{path.relative_to(ROOT)}:{start + i + 1}: {''.join(ours[i:i + 1])!r}"
    return ""


def main() -> None:
    differs = False
    for path in sorted([*ROOT.glob("*/train.py"), *ROOT.glob("*/sample.py")]):
        if line := first_difference(path):
            differs = True
            print(line)
            if sys.argv[1:] != ["--check"]:
                path.write_text(split(path)[0] + split(source(path))[1])
    raise SystemExit(differs and sys.argv[1:] == ["--check"])


if __name__ == "__main__":
    main()
