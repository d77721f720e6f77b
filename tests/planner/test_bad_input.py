import pytest

from tests.planner.bad_inputs import BASE, ESTIMATE, OUT, SEARCH, SPARSE, Bad, check

RUNS = ("validate", "runs.yaml")
RUN = "- {id: one, model: {name: x}, hardware: {gpu: H100}, parallel: {}, measured: {step_time_s: 1.0}}"

TABLE = {
    # names
    "unknown model": Bad(("search", "llama3.1-8x", *BASE[1:]), 3, ("'llama3.1-8x'", "did you mean 'llama3.1-8b'")),
    "unknown cluster": Bad(
        ("search", BASE[0], "--cluster", "h100-superpot", "--gpus", "64"), 3, ("did you mean 'h100-superpod'",)
    ),
    "unknown stack": Bad((*SEARCH, "--stack", "megatron-cor"), 3, ("--stack", "did you mean 'megatron-core'")),
    "three unknown names at once": Bad(
        ("search", "deepseek-v9", "--cluster", "h100-x", "--gpus", "64", "--stack", "no"),
        3,
        ("deepseek-v9", "h100-x", "'no'"),
    ),
    "unknown hardware": Bad(("hardware", "h100-sxn"), 3, ("'h100-sxn'", "did you mean 'h100-sxm'")),
    "diff of two kinds": Bad(("hardware", "diff", "h100-sxm", "dgx-h100"), 3, ("gpu", "node")),
    "diff with an unknown name": Bad(
        ("hardware", "diff", "h100-sxm", "a100-smx-80gb"), 3, ("did you mean 'a100-sxm-80gb'",)
    ),
    "diff of one": Bad(("hardware", "diff", "h100-sxm"), 2, ("diff A B",)),
    "unknown family to assume": Bad(
        ("models", "m.json", "--assume", "lama"), 3, ("'lama'", "did you mean 'llama'"), {"m.json": "{}"}
    ),
    # the command line
    "unknown command": Bad(("serch",), 2, ("serch", "search")),
    "unknown option": Bad((*SEARCH, "--global-bach", "1"), 2, ("--global-bach", "--global-batch")),
    "no cluster": Bad(("search", "llama3.1-8b", "--gpus", "64"), 2, ("--cluster",)),
    "no model": Bad(("search", "--cluster", "h100-superpod", "--gpus", "64"), 2, ("MODEL",)),
    "option without its value": Bad((*SEARCH, "--tokens"), 2, ("--tokens",)),
    "unknown objective": Bad((*SEARCH, "--objective", "speed"), 2, ("speed", "time", "cost", "memory")),
    "unknown precision": Bad((*SEARCH, "--precision", "fp7"), 2, ("fp7", "bf16")),
    "unknown pruning": Bad((*SEARCH, "--prune", "2:5"), 3, ("--prune", "'2:5'", "did you mean '2:4'")),
    "pruning that takes no amount": Bad((*SEARCH, "--prune", "2:4-experts:3"), 3, ("--prune", "no amount")),
    "pruning of all weights": Bad((*SEARCH, "--prune", "unstructured:1"), 3, ("--prune", "between 0 and 1")),
    "pruned experts of a dense model": Bad((*SEARCH, "--prune", "experts:4"), 3, ("--prune", "no experts")),
    "pruned experts without a count": Bad((*SEARCH, "--prune", "experts"), 3, ("--prune", "experts:COUNT")),
    "unknown quantization": Bad((*SEARCH, "--quantize", "int3"), 2, ("int3", "int4")),
    "sparse units that the GPU lacks": Bad(
        ("estimate", "qwen3-0.6b", "--cluster", "tpu-v5p", "--gpus", "8", "--prune", "2:4"),
        3,
        ("strategy.sparse", "2:4"),
    ),
    "a teacher's GPUs without a teacher": Bad(
        (*SEARCH, "--teacher-gpus", "8"), 3, ("--teacher-gpus", "--distill-from")
    ),
    "more logits than the teacher has": Bad(
        (*SEARCH, "--distill-from", "llama3.1-70b", "--teacher-topk", "1000000"), 3, ("--teacher-topk", "128,256")
    ),
    "more GPUs for the teacher than there are": Bad(
        (*SEARCH, "--distill-from", "llama3.1-8x", "--teacher-gpus", "64"), 3, ("'llama3.1-8x'", "leave GPUs", "64")
    ),
    "a teacher that fits no cut": Bad(
        (*SEARCH, "--distill-from", "llama3.1-405b", "--teacher-gpus", "7"), 3, ("--teacher-gpus", "llama3.1-405b")
    ),
    "critical batch and ramp-up at once": Bad(
        (*SEARCH, "--critical-batch", "loss:99", "--ramp-up", "8@1T,4@1G,x"),
        3,
        ("--critical-batch", "loss:99", "--ramp-up", "'x'", "SEQUENCES@TOKENS"),
    ),
    "ramp-up that falls": Bad((*SEARCH, "--ramp-up", "8@2T,4@1T"), 3, ("end after", "larger than 8")),
    "ramp-up past the end": Bad((*SEARCH, "--ramp-up", "4096@20T"), 3, ("must stay below", "must end before")),
    "unknown format": Bad((*SEARCH, "--format", "xml"), 2, ("xml", "json")),
    "headroom out of range": Bad((*SEARCH, "--headroom", "2"), 2, ("--headroom", "2.0", "0.9")),
    "headroom that is no number": Bad((*SEARCH, "--headroom", "nan"), 2, ("--headroom", "nan", "finite")),
    "zero out of range": Bad((*ESTIMATE, "--zero", "4"), 2, ("--zero", "4")),
    "unknown schedule": Bad((*ESTIMATE, "--schedule", "foo"), 2, ("foo", "1f1b")),
    "tokens negative": Bad((*SEARCH, "--tokens", "-5"), 3, ("--tokens", "'-5'", "negative")),
    "tokens of an unknown unit": Bad((*SEARCH, "--tokens", "15X"), 3, ("--tokens", "'15X'", "15T")),
    "tokens zero": Bad((*SEARCH, "--tokens", "0"), 3, ("--tokens", "'0'", "at least 1")),
    "tokens not a number": Bad((*SEARCH, "--tokens", "nan"), 3, ("--tokens", "'nan'")),
    "tokens beyond all sense": Bad((*SEARCH, "--tokens", "1e999"), 3, ("--tokens", "finite")),
    "a batch beyond all sense": Bad(
        (*SEARCH, "--global-batch", "1e15"), 3, ("--global-batch", "'1e15'", "at most 1,000,000,000")
    ),
    "more plans than one reads": Bad((*SEARCH, "--top", "1e6"), 3, ("--top", "at most 1,000")),
    "half a GPU": Bad((*ESTIMATE[:-1], "0.5"), 3, ("--gpus", "'0.5'", "whole number")),
    "GPUs in letters": Bad((*SEARCH[:-1], "abc"), 3, ("--gpus", "'abc'")),
    "GPUs in bytes": Bad((*SEARCH[:-1], "8 GB"), 3, ("--gpus", "'8 GB'", "bytes")),
    "GPUs with an empty place": Bad((*SEARCH[:-1], "8,,16"), 3, ("--gpus",)),
    "sizes from large to small": Bad(("capacity", *BASE[:-1], "64..8"), 3, ("--gpus", "'64..8'")),
    "deadline in dollars": Bad(("capacity", *BASE, "--deadline", "$5"), 3, ("--deadline", "12 h")),
    "budget in days": Bad(("capacity", *BASE, "--budget", "5d"), 3, ("--budget", "$5.6M")),
    "fix of nonsense": Bad((*SEARCH, "--fix", "nonsense"), 3, ("--fix", "'nonsense'", "tp")),
    "fix of a near name": Bad((*SEARCH, "--fix", "scedule=1f1b"), 3, ("--fix", "did you mean 'schedule'")),
    "fix of zero": Bad((*SEARCH, "--fix", "tp=0"), 3, ("--fix tp", "'0'", "from 1 to 1e9")),
    "fix of an unknown schedule": Bad(
        (*SEARCH, "--fix", "schedule=1f1p"), 3, ("--fix schedule", "did you mean '1f1b'")
    ),
    "fix of nothing": Bad((*SEARCH, "--fix", "tp="), 3, ("--fix tp",)),
    "two faults in fix": Bad((*SEARCH, "--fix", "tp=0,ep=x"), 3, ("--fix tp", "--fix ep")),
    # sizes
    "7 GPUs for tp = 8": Bad(
        ("estimate", *BASE[:-1], "7", "--tp", "8", *OUT), 3, ("strategy.world", "8", "7 GPUs", "did you mean 'tp = 7'")
    ),
    "9 GPUs on nodes of 8": Bad(
        (*SEARCH[:-1], "9", *OUT), 3, ("9", "multiple of the node's 8 GPUs", "did you mean '8'")
    ),
    "more GPUs than the cluster may have": Bad((*SEARCH[:-1], "1048576"), 3, ("1048576", "at most 131072")),
    "capacity with one wrong size": Bad(("capacity", *BASE[:-1], "9,16"), 3, ("9", "multiple of the node's 8 GPUs")),
    "a format that the GPU lacks": Bad((*SEARCH, "--precision", "nvfp4"), 3, ("--precision", "nvfp4", "has bf16")),
    "several rules broken": Bad(
        ("estimate", "mixtral-8x7b", *BASE[1:], "--tp", "3", "--ep", "5", "--pp", "64", *OUT),
        3,
        ("strategy.world", "strategy.heads", "strategy.experts", "strategy.layers", "did you mean"),
    ),
    "interleaved without chunks": Bad((*ESTIMATE, "--pp", "4", "--schedule", "interleaved"), 3, ("interleaved", "vpp")),
    "too large for the GPUs": Bad(
        ("search", "deepseek-v3", "--cluster", "h100-superpod", "--gpus", "8", "--global-batch", "64", *OUT),
        4,
        ("fits 8 x h100-sxm", "memory", "the leanest", "needs", "times the GPUs"),
    ),
    "a batch that divides nothing": Bad(
        (*SEARCH, "--global-batch", "1", "--fix", "tp=1,pp=1,cp=1", *OUT),
        4,
        ("no legal strategy", "batch dropped", "--global-batch"),
    ),
    "fix that nothing obeys": Bad((*SEARCH, "--fix", "tp=7", *OUT), 4, ("no legal strategy", "64 GPUs")),
    "capacity without any plan": Bad(
        ("capacity", "deepseek-v3", *BASE[1:-1], "8", "--quiet", *OUT), 4, ("no size has a plan", "memory")
    ),
    # places to write
    "search into a file": Bad((*SEARCH, *OUT), 3, ("--out", "out", "is a file"), {"out": "kept"}),
    "capacity into a file": Bad(("capacity", *BASE, *OUT), 3, ("--out", "is a file"), {"out": "kept"}),
    "search below a file": Bad((*SEARCH, "--out", "out/below"), 3, ("out",), {"out": "kept"}),
    "estimate into a folder": Bad((*ESTIMATE, *OUT), 2, ("--out", "out"), {"out/x": "kept"}),
    "capacity below a file": Bad(
        ("capacity", *BASE, "--out", "out/below"), 3, ("--out", "out", "is a file"), {"out": "kept"}
    ),
    "search where none may write": Bad((*SEARCH, "--out", "/proc/plans"), 3, ("/proc",)),
    "estimate where none may write": Bad(
        (*ESTIMATE, "--out", "/proc/plan.json"), 3, ("/proc/plan.json", "can't be written")
    ),
    "estimate below a file": Bad((*ESTIMATE, "--out", "out/plan.json"), 3, ("out",), {"out": "kept"}),
    # published runs
    "where without equals": Bad((*RUNS, "--where", "gpu"), 3, ("--where", "'gpu'", "KEY=VALUE"), {"runs.yaml": ""}),
    "where that nothing matches": Bad(
        (*RUNS, "--where", "gpu=H1000"), 3, ("--where", "'gpu=H1000'", "no row"), {"runs.yaml": RUN}
    ),
    "tolerance in words": Bad((*RUNS, "--tolerance", "much"), 2, ("--tolerance", "much"), {"runs.yaml": ""}),
    "tolerance that passes all": Bad((*RUNS, "--tolerance", "nan"), 2, ("--tolerance", "nan"), {"runs.yaml": ""}),
    "negative tolerance": Bad((*RUNS, "--tolerance", "-1"), 2, ("--tolerance", "-1"), {"runs.yaml": ""}),
    "runs that are missing": Bad(RUNS, 3, ("runs.yaml", "does not exist")),
    "directory as runs": Bad(RUNS, 3, ("runs.yaml", "directory"), {"runs.yaml/x": ""}),
    "half a YAML": Bad(RUNS, 3, ("runs.yaml", "YAML", "line"), {"runs.yaml": "runs: [1, 2"}),
    "empty runs": Bad(RUNS, 3, ("runs.yaml", "no list of runs"), {"runs.yaml": ""}),
    "large runs": Bad(RUNS, 3, ("runs.yaml", "64 MiB"), {"runs.yaml": SPARSE}),
    "runs not in UTF-8": Bad(RUNS, 3, ("runs.yaml", "UTF-8"), {"runs.yaml": b"\xff"}),
    "runs with wrong rows": Bad(RUNS, 3, ("row 1", "row 2: id", "model"), {"runs.yaml": "- 7\n- {id: 3}\n"}),
}


@pytest.mark.parametrize("name", TABLE)
def test_refused_in_clear_words(name, tmp_path, monkeypatch, capsys):
    """A bad command line is refused: exit code, a sentence of what and where, no traceback, data or file."""
    monkeypatch.chdir(tmp_path)
    check(TABLE[name], tmp_path, capsys)
