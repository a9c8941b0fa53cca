"""Copies the text below the ruled line to all papers, and counts lines. By hand, after an edit.

    python tests/copy_run.py

train.py's text comes from dcgan/, that of papers which torchrun starts too (they import
torch.distributed) from stylegan/; sample.py has one for all, dcgan's. Then it prints, of each
folder, the lines of model.py, of train.py above the line, of train(), and how many of those above
the line are unlike dcgan's, and writes them into the rows of the front page.
"""
import ast
import difflib
import re
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


def count(paper: str) -> tuple[int, int, int, int]:
    """Lines of model.py; of train.py's part above the line; of train(); unlike dcgan's part."""
    path = ROOT / paper / "train.py"
    above, dcgan = (split(p)[0].splitlines() for p in (path, ROOT / "dcgan" / "train.py"))
    train, = (node for node in ast.parse(path.read_text()).body
              if isinstance(node, ast.FunctionDef) and node.name == "train")
    unlike = sum(line[:2] in ("+ ", "- ") for line in difflib.ndiff(dcgan, above))
    model = len((ROOT / paper / "model.py").read_text().splitlines())
    return model, len(above), train.end_lineno - train.lineno + 1, unlike


def main() -> None:
    for path in sorted([*ROOT.glob("*/train.py"), *ROOT.glob("*/sample.py")]):
        if LINE not in path.read_text():
            print(f"{path.relative_to(ROOT)} has no ruled line: {LINE[:12]}...")
        elif line := first_difference(path):
            print(f"copied over {line}")
            path.write_text(split(path)[0] + split(source(path))[1])
    page, readme = ROOT / "README.md", (ROOT / "README.md").read_text()
    print("paper           model  above  train()  unlike dcgan's")
    for paper in sorted(path.parent.name for path in ROOT.glob("*/train.py")):
        model, above, train, unlike = count(paper)
        print(f"{paper:<15} {model:>5} {above:>6} {train:>8} {unlike:>15}")
        readme = re.sub(rf"(\]\({paper}/README\.md\).*\| )[\d, ]+( \|)$",
                        rf"\g<1>{model}, {above}, {unlike}\g<2>", readme, flags=re.M)
    page.write_text(readme)


if __name__ == "__main__":
    main()
