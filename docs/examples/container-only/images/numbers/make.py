"""make.py COUNT NUMBERS: the numbers from 1 to COUNT, one a line, below a URI."""

import sys

import fsspec

count, numbers = sys.argv[1:]
with fsspec.open(f"{numbers}/numbers.txt", "wt") as stream:
    stream.writelines(f"{number}\n" for number in range(1, int(count) + 1))
