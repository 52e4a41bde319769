"""README and the pages as programs: their fenced blocks, and `hfc` with small settings to run them by.

Under `small_defaults` `hfc` has other defaults (SMALL, `small_plan`): a tiny backbone with random weights where a page
leaves backbone and weights to hfc, few pictures, few epochs. What the page's words themselves ask for is left as it is.
`python -m tests.support.readme WORDS…` is Python, but installs nothing.
"""

import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = tuple(sorted((ROOT / "notebooks").glob("*.md")))
FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
HEREDOC = re.compile(r"<<'?(\w+)'?\n.*?^\1$", re.DOTALL | re.MULTILINE)
# What takes several GPUs, machines or a cluster: only its words can be looked at here.
ELSEWHERE = ("torchrun", "srun", "--engine ray")
SMALL: dict[str, dict[str, object]] = {
    "SampleConfig": {"images": 60},
    "ExtractConfig": {"backbone": "test_efficientnet", "weights": "random", "image_size": 32},
    "TrainConfig": {"epochs": 2},  # which every head takes: processes beside this one have hfc's own defaults
}


@dataclass(frozen=True)
class Block:
    """A fenced block of README or of a page."""

    language: str
    text: str

    @property
    def file(self) -> str:
        """The name of the file that a reader saves it as, which stands in its first line; "" where it has none."""
        name = re.match(r"# (\w+\.py)\n", self.text)
        return name[1] if name and self.language == "python" else ""

    @property
    def runs_here(self) -> bool:
        """Whether one machine with one CPU or GPU can run it."""
        return not any(word in self.text for word in ELSEWHERE)


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a Markdown text, in order."""
    return [Block(language, body) for language, body in FENCE.findall(text)]


def documentation() -> str:
    """README and all pages, one after the other."""
    return "\n".join(path.read_text("utf-8") for path in (README, *PAGES))


def hfc_commands(fenced: Iterable[Block]) -> list[tuple[str, ...]]:
    """The words after `hfc` (or `-m cli`) of every call in the bash blocks, each call once."""
    calls: dict[tuple[str, ...], None] = {}
    for block in fenced:
        if block.language == "bash":
            text = HEREDOC.sub("", block.text).replace("\\\n", " ")
            for line in text.splitlines():
                calls |= dict.fromkeys(_calls(line))
    return list(calls)


def _calls(line: str) -> Iterator[tuple[str, ...]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split = True
    words = list(lexer)
    for i, word in enumerate(words):
        if " -m cli " in word:  # a command inside quotes, as of bash -c
            yield from _calls(word)
        elif word == "hfc" or words[i : i + 2] == ["-m", "cli"]:
            rest = words[i + (1 if word == "hfc" else 2) :]
            end = next((j for j, w in enumerate(rest) if set(w) <= set(";&|>")), len(rest))
            if end and not rest[0].startswith(("-", "$")):
                yield tuple(rest[:end])


def small_plan(content: dict[str, Any]) -> dict[str, Any]:
    """A plan of `hfc ablation` that ships with hfc, with one point, one seed and two folds for each method.

    That which is judged on validation, without folds, is of outer folds: it has two methods.
    """
    two = [name for name in content["methods"] if name in ("flat", "hmcn-f")]
    fewer: dict[str, Any] = {"folds": 2} if "folds" in content else {"methods": two, "rows": {}}
    grid = {name: values[:1] for name, values in content["grid"].items()}
    seeds = {name: content[name][:1] for name in ("seeds", "search_seeds")}
    rows = fewer.get("methods", content["methods"])
    instead = {row: axes for row, axes in content.get("instead", {}).items() if row in rows}
    kept = {name: part for name, part in content.items() if name not in ("own", "instead")}
    return {**kept, **seeds, "grid": grid, "instead": instead, **fewer}


def small_defaults() -> None:
    """Give this process the defaults of SMALL, which presets, files and flags overrule as they overrule hfc's own.

    This must come first: everything takes `resolve` from hfc.config by name.
    """
    import hfc.config as config

    resolve, read_toml = config.resolve, config.read_toml
    config.resolve = lambda kind, *layers: resolve(kind, SMALL.get(kind.__name__, {}), *layers)  # type: ignore[assignment]
    config.read_toml = lambda path: small_plan(read_toml(path)) if path.parent.name == "ablations" else read_toml(path)


def no_pip(words: list[str]) -> None:
    """Python, but `-m pip install -e ".[extra]"` only looks whether there is such an extra."""
    if words[:3] != ["-m", "pip", "install"]:
        os.execv(sys.executable, [sys.executable, *words])
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    asked = re.findall(r"\[([\w,]+)\]", " ".join(words[3:]))
    unknown = {name for names in asked for name in names.split(",")} - set(setup["options.extras_require"])
    sys.exit(f"setup.cfg has no extra {', '.join(sorted(unknown))}" if unknown else 0)


if __name__ == "__main__":
    no_pip(sys.argv[1:])
