"""Reading and translating published runs."""

import copy

import pytest

from planner.errors import InputError
from planner.estimate import estimate
from planner.validate.hardware import nic_rate
from planner.validate.peak import predicted_peak
from planner.validate.read import measured_peak, measured_step, read
from planner.validate.refusal import Refused
from planner.validate.score import predict, selected, summary
from planner.validate.translate import translate

RUN = {
    "id": "made_up_70b",
    "source": "made up",
    "model": {
        "name": "made-up-70b", "arch_class": "dense", "layers": 80, "hidden": 8192, "ffn_hidden": 28672, "heads": 64,
        "kv_heads": 8, "head_dim": 128, "vocab": 128256, "gated_mlp": True, "attention": "gqa", "seq_len": 8192,
    },
    "hardware": {"gpu": "H100-SXM-80GB", "num_gpus": 64, "gpus_per_node": 8, "internode": "IB 400 Gb/s per GPU"},
    "parallel": {"tp": 4, "pp": 4, "vpp": 5, "cp": 2, "mbs": 1, "gbs": 128, "zero": "zero1(distributed optimizer)"},
    "precision": "bf16",
    "framework": "NeMo 25.04",
    "measured": {"step_time_s": 10.0, "peak_mem_gib": 70.0},
}  # fmt: skip


MIXTURE = {"experts": 8, "topk": 2, "moe_ffn_hidden": 28672}


def changed(**sections):
    """The made-up run with some fields changed; None removes a field."""
    run = copy.deepcopy(RUN)
    for name, values in sections.items():
        if not isinstance(values, dict):
            run[name] = values
            continue
        for key, value in values.items():
            run[name][key] = value
            if value is None:
                del run[name][key]
    return run


def test_a_run_becomes_a_plan():
    """Sizes, layout, stack and shards are read off the row."""
    plan = translate(RUN)
    assert (plan.degrees.tp, plan.degrees.pp, plan.degrees.vpp, plan.degrees.cp, plan.degrees.dp) == (4, 4, 5, 2, 2)
    assert plan.setting.choices.schedule == "interleaved"
    assert plan.setting.choices.zero == 1
    assert plan.setting.stack.name == "nemo"
    assert 68e9 < plan.setting.model.total_parameters() < 72e9


@pytest.mark.parametrize(
    ("words", "per_gpu"),
    [
        ("IB 400 Gb/s per GPU (Eos)", 50e9),
        ("RoCE 1600 Gb/s per node", 25e9),
        ("4 x 100 Gb/s RoCE per node (50 GB/s per 8-GPU node)", 6.25e9),
        ("InfiniBand 8x50 GB/s", 50e9),
        ("8x ConnectX-7 IB NDR 400 Gb/s per node", 50e9),
        ("8x HDR IB 200 Gb/s per node (Selene)", 25e9),
        ("Omni-Path, 4 links per node (Jean Zay)", 6.25e9),
        ("RoCE RDMA", None),
    ],
)
def test_nic_rates_are_read_from_words(words, per_gpu):
    """A NIC rate is per GPU and direction, whatever way the source words it."""
    assert nic_rate(words, 8) == per_gpu


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"hardware": {"gpu": "Cray-1"}}, "no profile of the GPU Cray-1"),
        ({"hardware": {"num_gpus": None}}, "number of GPUs"),
        ({"hardware": {"num_gpus": 12}}, "whole number of nodes"),
        ({"parallel": {"gbs": None}}, "global batch is not stated"),
        ({"parallel": {"gbs": 7}}, "must divide the global batch 7"),
        ({"parallel": {"tp": 3}}, "does not divide the 64 GPUs"),
        ({"model": {"seq_len": None}}, "sequence length"),
        ({"model": {"layers": None}}, "layers"),
        ({"model": {"arch_class": "hybrid_mamba"}}, "hybrid_mamba"),
        ({"parallel": {"vpp": 40}}, "chunks exceed"),
        ({"notes": ["CPU-offloaded AdamW: the step includes the host"]}, "memory of the host"),
        ({"precision": "fp8", "hardware": {"gpu": "A100-SXM-80GB"}}, "no fp8 matrix units"),
    ],
)
def test_refusals_have_a_reason(sections, reason):
    """What the source leaves open is refused in words."""
    with pytest.raises(Refused, match=reason):
        translate(changed(**sections))


@pytest.mark.parametrize(
    ("framework", "etp", "used"),
    [
        ("NeMo 24.09", None, 4),
        ("Megatron-Core (MCore), PyTorch 2.5", None, 4),
        ("Megatron-Core (MCore w/ Folding), PyTorch 2.5", None, 1),
        ("NeMo/Megatron-Bridge container 25.09", None, 1),
        ("NeMo 24.09", 1, 1),
    ],
)
def test_experts_of_early_megatron_share_tp(framework, etp, used):
    """Where a source is silent, experts are cut by tp in Megatron-Core before parallel folding, and not after it."""
    parallel = {"ep": 2, "tp": 4, "vpp": None, "pp": 1, "cp": 1, "gbs": 128, "etp": etp}
    run = changed(model={"arch_class": "moe", "moe": MIXTURE}, parallel=parallel | {"etp": 0}, framework=framework)
    run["parallel"]["etp"] = etp
    assert translate(run).degrees.etp == used


@pytest.mark.parametrize(
    ("framework", "parallel", "micro_batch"),
    [
        ("torchtitan 9dec370", {"vpp": None, "mbs": None}, 16),
        ("NeMo 25.04", {"vpp": None, "mbs": None, "grad_accum": 32}, 2),
        ("torchtitan 9dec370", {"vpp": None, "mbs": 2}, 2),
    ],
)
def test_a_silent_micro_batch(framework, parallel, micro_batch):
    """It follows from the gradient accumulation; torchtitan cuts a batch into pp micro-batches by default."""
    assert translate(changed(framework=framework, parallel=parallel)).degrees.micro_batch == micro_batch


def test_a_micro_batch_that_nothing_tells_is_the_fastest_that_fits():
    """A source that names none has tuned it; mixtures, whose memory is short, ran one sequence."""
    silent = changed(
        parallel={"vpp": None, "mbs": None, "tp": 8}, framework="Megatron-LM 2021 (PTD-P)", recompute="full"
    )
    chosen = translate(silent)
    times = {}
    for size in (1, 2, 4):
        sizes = {"vpp": None, "mbs": size, "tp": 8}
        plan = translate(changed(parallel=sizes, framework="Megatron-LM 2021 (PTD-P)", recompute="full"))
        found = estimate(plan.setting, plan.degrees)
        if found.peak <= plan.setting.gpu.hbm_capacity:
            times[size] = float(found.step.total)
    assert chosen.degrees.micro_batch == min(times, key=times.get)
    mixture = changed(model={"arch_class": "moe", "moe": MIXTURE}, parallel={"vpp": None, "mbs": None, "ep": 8})
    assert translate(mixture).degrees.micro_batch == 1


def test_a_silent_global_batch():
    """Micro-batch, accumulation and dp give the global batch."""
    run = changed(parallel={"gbs": None, "grad_accum": 20})
    assert translate(run).setting.workload.global_batch == 2 * 1 * 20


@pytest.mark.parametrize(
    ("framework", "name"),
    [
        ("Composer/llm-foundry, PyTorch FSDP", "llm-foundry"),
        ("Megatron-DeepSpeed 2022", "megatron-deepspeed"),
        ("InternEvo (FlashAttention)", "internevo"),
        ("MaxText (JAX)", "jax-xla"),
        ("NeMo/Megatron-Bridge container 26.06", "nemo"),
        ("HAI-LLM", "hai-llm"),
        ("Megatron-Core v0.16", "nemo"),
        ("Megatron-Core r0.12", "megatron-core"),
    ],
)
def test_frameworks_have_stacks(framework, name):
    """Each framework is priced with the stack that works like it."""
    assert translate(changed(framework=framework)).setting.stack.name == name


@pytest.mark.parametrize(
    ("precision", "used"),
    [("fp16", "bf16"), (None, "bf16"), ("amp_fp8", "fp8"), ("mxfp8", "mxfp8"), ("nvfp4", "nvfp4")],
)
def test_precision_words(precision, used):
    """fp16 and silence are priced as bf16; a scaled format by its block."""
    run = changed(hardware={"gpu": "B200-SXM"}, precision=precision)
    assert translate(run).setting.choices.precision == used


def test_a_stated_lack_of_overlap_slows_the_run():
    """The row's own words on overlap reach the stack."""
    assert predict(changed(overlap="none (TP overlap disabled)"))["predicted_step_s"] > predict(RUN)["predicted_step_s"]


def test_hybrid_shards():
    """ZeRO within a group of 8 ranks becomes shard groups."""
    run = changed(parallel={"zero": "zero1 within a group of 8 ranks", "tp": 1, "pp": 1, "vpp": None, "cp": 1})
    assert translate(run).degrees.replicas == 8


def test_measured_values():
    """Printed time before derived time; GiB to bytes; nonsense is no value."""
    assert measured_step({**RUN, "measured": {"step_time_s": None}, "derived": {"step_time_s": 3.0}}) == 3.0
    assert measured_step({**RUN, "measured": {"step_time_s": float("nan")}}) is None
    assert measured_peak({"measured": {"peak_mem_gib": 2}}) == 2 * 2**30


@pytest.mark.parametrize(
    ("measured", "seconds"),
    [
        ({"tokens_per_s_total": 1024.0}, 128 * 8192 / 1024),
        ({"tokens_per_s_per_gpu": 16.0}, 128 * 8192 / (16 * 64)),
        ({"samples_per_s": 4.0}, 32.0),
        ({"samples_per_s_per_gpu": 0.5}, 4.0),
        ({"tflops_per_gpu": 400.0}, None),
    ],
)
def test_rates_become_step_times(measured, seconds):
    """A rate of tokens or samples over the global batch is a step time; FLOP/s is not, its conventions differ."""
    assert measured_step({**RUN, "measured": measured}) == seconds


def test_a_run_without_a_measurement_is_predicted():
    """Whether a row is predicted does not depend on what was measured; without it there is no error."""
    found, bare = predict(RUN), predict({key: value for key, value in RUN.items() if key != "measured"})
    assert bare["status"] == "ok"
    assert bare["error"] is bare["memory_error"] is None
    for key in ("predicted_step_s", "predicted_peak_bytes", "interval_s"):
        assert bare[key] == found[key]


def test_memory_is_compared_in_the_kind_that_the_source_prints():
    """What torch allocated is less than what it reserved, and that less than what the driver reports."""
    sources = ("MLCommons x", "pytorch/torchtitan", "Korthikanti")
    allocated, reserved, driver = (predicted_peak(translate(RUN), changed(source=source)) for source in sources)
    assert allocated < reserved < driver


def test_summary_counts():
    """Bias is signed, errors are absolute, refused rows are counted and not scored."""
    rows = [predict(RUN), predict(changed(hardware={"gpu": "Cray-1"}))]
    found = summary(rows)
    assert found["unsupported"] == 1
    assert found["time"]["n"] == 1
    assert found["time"]["median_abs_error"] == abs(found["time"]["bias"])


def test_where_selects_rows(tmp_path):
    """--where compares text in the row, its hardware or its layout."""
    file = tmp_path / "runs.yaml"
    file.write_text("[" + str(RUN).replace("True", "true") + "]", encoding="utf-8")
    assert len(selected(file, {"gpu": "h100"})) == 1
    assert selected(file, {"gpu": "A100"}) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no list"),
        (b"a: [1", "not valid YAML"),
        (b"\xff\xfe", "not UTF-8"),
        (b"- 3", "expected a mapping"),
        (b"- {id: x}", "model: expected a mapping"),
        (b"runs: 4", "holds no list"),
        (b"- {id: x, model: {}, hardware: {}, parallel: {tp: four}}", r"row 1 \(x\): parallel.tp is 'four'"),
        (b"- {id: x, model: {}, hardware: {num_gpus: true}, parallel: {}}", "hardware.num_gpus is True"),
        (b"- {id: x, model: {}, hardware: {}, parallel: {}, measured: 3}", "measured is 3: expected a mapping"),
    ],
)
def test_bad_files(tmp_path, content, message):
    """A file that holds no runs is refused in one sentence."""
    file = tmp_path / "runs.yaml"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(file)


def test_all_faults_of_a_file_at_once(tmp_path):
    """Every wrong value of every row is named in one error."""
    file = tmp_path / "runs.yaml"
    file.write_text("- {id: x, model: 3, hardware: {}, parallel: {tp: -1, pp: 2.5}}\n- {}\n", encoding="utf-8")
    with pytest.raises(InputError) as error:
        read(file)
    assert [fault.where.partition(": ")[2] for fault in error.value.faults] == [
        "row 1 (x): model", "row 1 (x): parallel.tp", "row 1 (x): parallel.pp", "row 2: id", "row 2: model",
        "row 2: hardware", "row 2: parallel",
    ]  # fmt: skip
