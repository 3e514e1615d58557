"""Processes that begin as forks of one that has imported what they need, which takes seconds each time."""

from __future__ import annotations

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

# Each line on its stdin: a folder, two files for what is printed, the environment, a program, its arguments.
CODE = """
import json, os, sys
exec(sys.argv[1])
for line in sys.stdin:
    folder, outputs, environment, program, *sys.argv[1:] = json.loads(line)
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    for descriptor, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    exec(program, {"__name__": "__main__"})
    sys.exit()
"""
COMMANDS = "from selfscale.cli import app"
# Without a tensor: TensorFlow's threads do not survive a fork.
TRAINING = f"""
from selfscale.processes import own_environment
own_environment()
{COMMANDS}
from selfscale.pipeline import baseline, minimize
from selfscale.tracking import store
"""


class Ended(NamedTuple):
    code: int
    out: str
    err: str


@functools.cache
def origin(imports: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", CODE, imports]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(process.communicate)
    return process


def fork(
    imports: str,
    folder: Path,
    program: str,
    *arguments: Path | str,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Run a program in a process of its own, in which these imports are done."""
    process = origin(imports)
    assert process.stdin and process.stdout
    with tempfile.TemporaryDirectory() as name:
        outputs = [Path(name) / "out", Path(name) / "err"]
        given = dict(environment or os.environ)
        asked = [str(folder), [*map(str, outputs)], given, program, *map(str, arguments)]
        print(json.dumps(asked), file=process.stdin, flush=True)
        code = int(process.stdout.readline())
        return Ended(code, *(path.read_text() for path in outputs))
