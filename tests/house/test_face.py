import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from planner.cli import plan

HEAVY = ("torch", "plotly", "scipy", "networkx", "pandas")
HELP_CPU_SECONDS = 0.6  # twice what is promised, so that a busy machine doesn't fail it
WRITTEN = ("README.md", "CONTRIBUTING.md", "Makefile", "docs")


def commands() -> dict[str, click.Command]:
    """The commands of `plan`, each loaded."""
    context = click.Context(plan)
    return {name: plan.get_command(context, name) for name in plan.list_commands(context)}


def help_in_a_new_process() -> tuple[set[str], float]:
    """The modules that `plan --help` loads, and its CPU time [s]."""
    code = (
        "import sys, resource\n"
        "from planner.cli import main\n"
        "assert main(['--help']) == 0\n"
        "usage = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print(usage.ru_utime + usage.ru_stime, *sys.modules, file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage:" in result.stdout
    seconds, *modules = result.stderr.split()
    return set(modules), float(seconds)


def test_help_loads_nothing_heavy_and_is_quick():
    """`plan --help` loads neither torch, plotly, scipy nor networkx and answers at once."""
    runs = [help_in_a_new_process() for _ in range(3)]
    loaded = {module.split(".")[0] for module in runs[0][0]}
    assert "planner" in loaded
    assert loaded & set(HEAVY) == set()
    assert min(seconds for _, seconds in runs) < HELP_CPU_SECONDS


def test_every_command_has_help():
    """Each command loads and explains itself, and each option has a text or a list of what it takes."""
    assert {"search", "estimate", "explain", "capacity", "validate"} <= commands().keys()
    for name, command in commands().items():
        assert CliRunner().invoke(command, ["--help"]).exit_code == 0, name
        options = [option for option in command.params if isinstance(option, click.Option)]
        listed = [option for option in options if option.is_flag or isinstance(option.type, click.Choice)]
        bare = [option.name for option in options if not option.help and option not in listed]
        assert (name, bare) == (name, [])


def written_commands(root: Path) -> list[tuple[str, list[str]]]:
    """Every `plan …` that the documents or the Makefile tell the reader to type: (file, words behind `plan`)."""
    found = []
    for entry in WRITTEN:
        paths = sorted((root / entry).glob("*.md")) if (root / entry).is_dir() else [root / entry]
        for path in paths:
            text = path.read_text(encoding="utf-8").replace("\\\n", " ")
            lines = re.findall(r"^(?:\$ (?:\S*/)?plan|\t@?\$\(PLAN\)) (.*)$", text, flags=re.MULTILINE)
            lines += re.findall(r"`plan ([^`\n]+)`", text)
            found += [(path.name, shlex.split(line)) for line in lines]
    return found


def test_what_the_documents_tell_to_type_exists(root):
    """Each `plan` command in README, docs and Makefile is a command of the CLI, and its options are options."""
    known = commands()
    written = written_commands(root)
    assert {"README.md", "Makefile"} <= {file for file, _ in written}
    unknown = []
    for file, (name, *words) in written:
        if name.startswith("-") or name == "…":
            continue
        options = {text for option in known[name].params for text in option.opts} if name in known else set()
        used = {word.split("=")[0] for word in words if word.startswith("--")} - {"--help"}
        if name not in known or used - options:
            unknown.append((file, name, sorted(used - options)))
    assert unknown == []


def test_make_targets_of_the_documents_exist(root):
    """Each `make …` in README and CONTRIBUTING is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (root / name).read_text(encoding="utf-8")
        used = {word for line in re.findall(r"(?:`|\$ )make ([a-z ]+)", text) for word in line.split()}
        assert used
        assert used <= targets


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/units.md", "docs/hardware.md"])
def test_links_between_documents_hold(root, name):
    """A link to a file of the repository leads to one."""
    text = (root / name).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    broken = [link for link in links if not ((root / name).parent / link).exists()]
    assert broken == []
