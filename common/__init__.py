"""Data sets and image files, for all papers, and the two ways in which they speak to a user."""
import sys
from typing import NoReturn


def fail(message: str) -> NoReturn:
    """Ends the program over a user's mistake: one line on stderr, exit code 2."""
    if sys.stderr.isatty():
        print(file=sys.stderr)  # below a status line that is still open
    print("error:", message.replace("\n", " "), file=sys.stderr)
    raise SystemExit(2)


def say(line: str, end: str = "\n") -> None:
    """print(), but of a name that the terminal cannot show, the other letters."""
    encoding = sys.stdout.encoding or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding), end=end, flush=True)
