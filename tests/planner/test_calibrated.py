"""A calibration in a plan: measured hardware, the stack that ran, and the file that the plan names."""

import json

import pytest
from click.testing import CliRunner

from hwprofiles import calibration
from planner.calibrated import calibrated, mechanisms
from planner.cli import main, plan
from planner.errors import InputError
from planner.plan import plan_json, prepare, read
from planner.strategy import Choices, Workload

TEXT = """
name = "lab"
date = "2026-11-24"
[machine]
gpu = "x86-core"
[residuals]
"step.held_out" = 0.05
[gpu]
matmul.fp32.efficiency = { value = 0.25, source = "measured: sweep" }
[stack]
name = "torch-eager"
kernel_gap = 2e-5
scatter_by_reduce = 0
"""
WORK = Workload(128, 4, 1e6)
ESTIMATE = ["estimate", "qwen3-0.6b", "--cluster", "cpu-loopback", "--gpus", "2", "--precision", "fp32",
            "--seq-len", "128", "--global-batch", "4"]  # fmt: skip


@pytest.fixture
def lab(tmp_path):
    """TEXT as a file."""
    path = tmp_path / "lab.toml"
    path.write_text(TEXT)
    return path


def test_hardware_and_stack_are_those_that_were_measured(lab):
    """Numbers of the profile and mechanisms of the stack replaced, a switch as a switch; another stack stays itself."""
    made = prepare("qwen3-0.6b", "cpu-loopback", 2, WORK, Choices(precision="fp32"), "torch-eager", str(lab))
    assert made.setting.gpu.matmul["fp32"].efficiency == 0.25
    assert made.setting.stack.kernel_gap == 2e-5
    assert made.setting.stack.scatter_by_reduce is False
    other = prepare("qwen3-0.6b", "cpu-loopback", 2, WORK, Choices(precision="fp32"), "nemo")
    after = calibrated(other.setting, calibration.load(lab))
    assert after.stack == other.setting.stack
    assert after.gpu.matmul["fp32"].efficiency == 0.25


def test_a_plan_keeps_its_calibration(lab, tmp_path):
    """plan.json names the file and its hash; read, it gives the same calibrated plan."""
    made = prepare("qwen3-0.6b", "cpu-loopback", 2, WORK, Choices(precision="fp32"), "torch-eager", str(lab))
    data = plan_json(made)
    assert data["inputs"]["calibration"] == str(lab)
    assert {row["what"] for row in data["provenance"]} == {"model", "cluster", "stack", "calibration"}
    (tmp_path / "plan.json").write_text(json.dumps(data))
    again = read(tmp_path / "plan.json")
    assert again == made
    assert again.setting.stack.kernel_gap == 2e-5


def test_commands_price_with_it(lab):
    """A slower multiply makes a slower step."""
    arguments = [*ESTIMATE, "--stack", "torch-eager", "--json"]
    before = json.loads(CliRunner().invoke(plan, arguments).stdout)["step_time_s"]
    after = json.loads(CliRunner().invoke(plan, [*arguments, "--calibration", str(lab)]).stdout)["step_time_s"]
    assert after > 1.3 * before


def test_an_unknown_mechanism_is_one_sentence(lab, capsys):
    """With the nearest known one."""
    lab.write_text(TEXT.replace("kernel_gap", "kernel_gab"))
    with pytest.raises(InputError, match="did you mean 'kernel_gap'"):
        mechanisms(calibration.load(lab))
    assert main([*ESTIMATE, "--stack", "torch-eager", "--calibration", str(lab)]) == 3
    assert "no stack has this mechanism" in capsys.readouterr().err


def test_a_calibration_of_another_gpu_is_refused(lab, capsys):
    """It says nothing of an H100."""
    arguments = [word.replace("cpu-loopback", "h100-node").replace("fp32", "bf16") for word in ESTIMATE]
    assert main([*arguments, "--calibration", str(lab)]) == 3
    assert "x86-core" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ('name = "torch-eager"', "the name of a stack"),
        ("kernel_gap = 2e-5", "stack.kernel_gap"),
    ],
)
def test_a_broken_stack_table_is_refused(lab, change, word):
    """A name and plain numbers, nothing else."""
    lab.write_text(TEXT.replace(change, "" if "name" in change else 'kernel_gap = "fast"'))
    with pytest.raises(InputError, match=word):
        calibration.load(lab)
