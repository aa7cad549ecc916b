"""Files that hold no text, or text that is no pipeline and no portaflow.toml."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.mutations import Case, save


def _link(file: Path, to: str) -> None:
    file.unlink(missing_ok=True)
    file.symlink_to(to)


def _folder(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.mkdir()


def _fifo(file: Path) -> None:
    file.unlink(missing_ok=True)
    os.mkfifo(file)


def _large(file: Path) -> None:
    file.write_bytes(b"")
    os.truncate(file, 2**33)


DEEP = 20_000
BYTES: dict[str, Callable[[Path], object]] = {
    "binary": lambda f: f.write_bytes(random.Random(1).randbytes(5000)),
    "elf": lambda f: f.write_bytes(b"\x7fELF\x02\x01\x01" + b"\0" * 100),
    "nul bytes": lambda f: f.write_bytes(b"\0" * 4096),
    "a nul byte inside": lambda f: f.write_bytes(f.read_bytes()[:40] + b"\0" + f.read_bytes()[40:]),
    "latin-1": lambda f: f.write_bytes("name = 'Größe'\nname: Größe\n".encode("latin-1")),
    "utf-16": lambda f: f.write_bytes(f.read_text().encode("utf-16")),
    "utf-32": lambda f: f.write_bytes(f.read_text().encode("utf-32")),
    "half a character": lambda f: f.write_bytes(f.read_bytes() + b"\xc3"),
    "brackets": lambda f: f.write_text("[" * DEEP),
    "braces": lambda f: f.write_text("x: " + "{a: " * DEEP),
    "half": lambda f: f.write_text(f.read_text()[: len(f.read_text()) // 2 + 3] + "\n}]"),
    "one long line": lambda f: f.write_text("x" * 10**6 + " {{"),
    "control characters": lambda f: f.write_text("\x1b[2J\x07\x08 = [\n"),
    "a folder": _folder,
    "a loop of links": lambda f: _link(f, f.name),
    "a link to nothing": lambda f: _link(f, "nothing"),
    "unreadable": lambda f: _link(f, "/proc/self/mem"),
    "a pipe": _fifo,
    "large": _large,
}
HARMLESS_FOR = {("portaflow.toml", "a pipe"), ("portaflow.toml", "a folder")}

YAML_TEXTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "empty": ("", ("mapping",)),
    "comment": ("# nothing\n", ("mapping",)),
    "list": ("- a\n", ("mapping",)),
    "text": ("hello", ("mapping",)),
    "two documents": ("name: a\n---\nname: b\n", ("line",)),
    "tab": ("name: a\n\ttasks: []\n", ("line 2",)),
    "object": ("name: !!python/object/apply:os.system [ls]\n", ("line 1",)),
    "object new": ("name: !!python/object/new:str [x]\n", ("line 1",)),
    "python name": ("name: !!python/name:os.system\n", ("line 1",)),
    "own tag": ("name: !mine x\n", ("line 1",)),
    "binary tag": ("name: !!binary aGVsbG8=\ntasks: []\n", ("name",)),
    "set": ("name: !!set {a, b}\ntasks: []\n", ("name",)),
    "alias": ("name: &a x\ndescription: *a\n", ("aliases", "line 2")),
    "laughs": (
        "a: &a [x,x]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)},*{chr(97 + i)}]\n"
                                   for i in range(20)), ("aliases",),
    ),
    "itself": ("name: &a [*a]\n", ("aliases",)),
    "merge": ("name: x\n<<: &a {tasks: []}\n", ("tasks",)),
    "key twice": ("name: a\nname: b\n", ("'name' is there twice", "line 2")),
    "key twice below": ("name: a\nparams: {x: 1, x: 2}\n", ("'x' is there twice", "line 2")),
    "list as key": ("? [a, b]\n: 1\n", ()),
    "mapping as key": ("? {a: b}\n: 1\n", ()),
    "number as key": ("name: a\n1: x\n", ("1",)),
    "null as key": ("name: a\n~: x\n", ()),
    "large number": ("name: a\nparams: {x: " + "9" * 9000 + "}\n", ("digits",)),
    "large hex": ("name: a\nparams: {x: 0x" + "f" * 9000 + "}\ntasks: []\n", ("tasks",)),
    "date": ("name: a\nparams: {x: 2026-01-02}\ntasks: []\n", ("params.x",)),
    "bad date": ("name: a\nparams: {x: 2026-13-45}\ntasks: []\n", ()),
    "nan": ("name: a\nparams: {x: .nan}\ntasks: []\n", ("params.x",)),
    "sexagesimal": ("name: 1:30\ntasks: []\n", ("name",)),
    "yes": ("name: yes\ntasks: []\n", ("name",)),
}  # fmt: skip
PYTHON_TEXTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "empty": ("", ("pipeline",)),
    "no pipeline": ("x = 1\n", ("pipeline",)),
    "a class": ("from portaflow import Pipeline as pipeline\n", ("pipeline",)),
    "a dict": ("pipeline = {'name': 'x'}\n", ("pipeline",)),
    "exit": ("import sys\nsys.exit(0)\n", ("exit",)),
    "exit text": ("raise SystemExit('bye')\n", ("exit",)),
    "error": ("x = 1\nraise ValueError('bad\\x1b[2J')\n", (":2", "ValueError")),
    "long error": ("raise ValueError('x' * 10**6)\n", (":1", "ValueError")),
    "own error": ("class E(Exception):\n  def __str__(self): return 1 / 0\nraise E\n", ("E",)),
    "recursion": ("def f(): f()\nf()\n", ("RecursionError",)),
    "memory": ("x = 'a' * 10**18\n", (":1", "MemoryError")),
    "overflow": ("x = 2.0 ** 10**9\n", (":1", "OverflowError")),
    "import": ("\n\nimport nothing_here\n", (":3", "nothing_here")),
    "syntax": ("x = 1\ny = (\n", (":2", "SyntaxError")),
    "indent": ("if 1:\nx = 1\n", (":2", "IndentationError")),
    "tabs": ("if 1:\n        x = 1\n\ty = 1\n", ("TabError",)),
    "python 2": ("print 'hello'\n", (":1", "SyntaxError")),
    "deep": ("x = " + "(" * 5000 + ")" * 5000, ("",)),
    "deep minus": ("x = " + "-" * 50_000 + "1", ("",)),
    "path taken": ("import sys\nsys.path.clear()\n", ("pipeline",)),
    "modules taken": ("import sys\ndel sys.modules[__name__]\n", ("pipeline",)),
    "positional": ("from portaflow import *\nPipeline('x')\n", (":2",)),
    "one task": ("from portaflow import *\n\nPipeline(name='x', tasks=3)\n", (":3", "tasks")),
    "set": ("from portaflow import *\nContainerTask(id='a', image={'x'})\n", (":2", "image")),
    "object": ("from portaflow import *\nCallTask(id='a', function=print)\n", (":2", "function")),
    "bytes": ("from portaflow import *\nContainerTask(id=b'\\xff', image='x')\n", (":2", "id")),
    "cluster": ("from portaflow import *\nCluster(name='c', ttl='never')\n", (":2", "ttl")),
    "size": ("from portaflow import *\nSize(memory='4 elephants')\n", (":2", "memory")),
    "itself": ("from portaflow import *\nx = []\nx.append(x)\n"
               "Pipeline(name='a', tasks=[], params={'x': x})\n", (":4", "params")),
}  # fmt: skip
TOML_TEXTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "no toml": ("hello\n", ("line 1",)),
    "key twice": ("a = 1\na = 2\n", ("line 2",)),
    "table twice": ("[targets.a]\n[targets.a]\n", ("line 2",)),
    "large number": ("a = " + "9" * 9000, ("digits",)),
    "bad date": ("a = 2026-13-45\n", ()),
    "deep path": ("[targets.local." + ".".join("a" * 5000) + "]\nx = 1\n", ("nested deeper",)),
    "deep dots": ("targets.local." + ".".join("a" * 3000) + " = 1\n", ("nested deeper",)),
    "deep list": ("[targets.local.params]\nx = " + "[" * 300 + "]" * 300 + "\n", ("params",)),
    "no targets": ("targets = 3\n", ("targets",)),
    "no table": ("[targets]\nlocal = 3\n", ("targets.local",)),
    "tables": ("[[targets]]\nname = 'x'\n", ("targets",)),
    "control": ('"\\u001b[2J" = 1\n', ("unknown key",)),
    "long": (f"{'x' * 10**5} = 1\n", ("unknown key",)),
    "control below": ('[targets.local]\n"\\u001b[2J" = 1\n', ("unknown key",)),
    "long below": (f"[targets.local]\n{'x' * 10**5} = 1\n", ("unknown key",)),
}


def file_cases() -> Iterator[Case]:
    for file in ("pipeline.yaml", "pipeline.py", "portaflow.toml"):
        for name, write in BYTES.items():
            if (file, name) not in HARMLESS_FOR:
                yield Case(f"{file} is {name}", file, lambda f, w=write, n=file: w(f / n))  # type: ignore[misc]
    for file, texts in (
        ("pipeline.yaml", YAML_TEXTS),
        ("pipeline.py", PYTHON_TEXTS),
        ("portaflow.toml", TOML_TEXTS),
    ):
        for name, (text, told) in texts.items():
            yield Case(f"{file}: {name}", file, lambda f, t=text, n=file: save(f / n, t), told)  # type: ignore[misc]
