"""`python -m support.owns_terminal ARGUMENTS`: modelforge as the program that a terminal's keys interrupt.

Several commands stand with `;` between them, and the first that fails is the last one.
"""

import fcntl
import sys
import termios

from modelforge.cli import main

if __name__ == "__main__":
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    code, words = 0, sys.argv[1:]
    while words and code == 0:
        end = words.index(";") if ";" in words else len(words)
        code, words = main(words[:end]), words[end + 1 :]
    sys.exit(code)
