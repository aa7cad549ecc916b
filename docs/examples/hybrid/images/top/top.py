"""top.py COUNTS RESULT: the most frequent word of the JSON lines below a URI, as JSON."""

import json
import sys

import fsspec

counts, result = sys.argv[1:]
rows = []
for file in fsspec.open_files(f"{counts}/*.json", "rt", encoding="utf-8"):
    with file as lines:
        rows += map(json.loads, lines)
top = min(rows, key=lambda row: (-row["count"], row["word"]))
with fsspec.open(result, "wt", encoding="utf-8") as stream:
    json.dump({"words": len(rows), "top": top["word"], "times": top["count"]}, stream)
