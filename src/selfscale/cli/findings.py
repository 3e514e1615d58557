"""What a check of the installation or project finds, and how it is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from selfscale.errors import UserError, one_line


class Finding(NamedTuple):
    """One line: what there is, or what is wrong and, behind a semicolon, what to do about it."""

    subject: str
    text: str
    problem: bool = False


Check = Callable[[], Iterable[Finding]]


def collect(subject: str, check: Check) -> list[Finding]:
    """What a check finds; an error, after which it cannot go on, is its last finding."""
    findings = []
    try:
        for finding in check():
            findings.append(finding)
    except UserError as error:
        findings.append(Finding(subject, str(error), problem=True))
    except ImportError as error:
        findings.append(Finding(subject, f"{error}; install selfscale again", problem=True))
    except OSError as error:
        text = f"{error.filename or 'the disk'}: {error.strerror}; make it readable and writable"
        findings.append(Finding(subject, text, problem=True))
    return findings


def render(findings: Iterable[Finding]) -> str:
    """A line per finding, problems marked, and their number at the end."""
    findings = list(findings)
    lines = [
        f"{'!' if problem else ' '} {subject:<9} {one_line(text)}" for subject, text, problem in findings
    ]
    problems = sum(finding.problem for finding in findings)
    end = f"{problems} problem{'s' * (problems > 1)}, marked with !" if problems else "nothing is wrong"
    return "\n".join([*lines, end]) + "\n"
