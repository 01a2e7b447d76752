"""Reads a `tokenizer.json` on its stdin: `python -m modelforge.admission.estimate.tokenizer_file`.

It imports nothing else, and leaves what it has made as it is: somebody waits for its answer.
"""

import os
import sys

UNREADABLE = 3
"""The exit code; an interpreter that fails has others."""


def main() -> int:
    """Read the file, and say how many tokens it has on stdout, or what is wrong with it on stderr."""
    from tokenizers import Tokenizer

    try:
        tokens = Tokenizer.from_str(sys.stdin.buffer.read().decode()).get_vocab(with_added_tokens=True)
    except Exception as error:  # noqa: BLE001 - the library raises nothing more precise
        sys.stderr.write(f"{error}\n")
        return UNREADABLE
    sys.stdout.write(str(max(tokens.values(), default=-1) + 1))
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
