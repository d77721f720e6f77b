"""The plan: a priced strategy with everything needed to price it again, and its JSON (see docs/json.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import hwprofiles.calibration
from hwprofiles import load
from planner import catalog, methods, stack
from planner.calibrated import calibrated
from planner.errors import Fault, InputError
from planner.estimate import Estimate, estimate
from planner.interval import interval, novelties
from planner.model import Model
from planner.plan_file import read_json, stated
from planner.precision import PRECISIONS
from planner.provenance import SCHEMA_VERSION, fingerprint, tool_version
from planner.rules import Case, broken
from planner.setting import Setting, micro_batch_count
from planner.strategy import Choices, Degrees, Workload

Json = dict[str, Any]
HOUR, DAY = 3600.0, 86400.0


@dataclass(frozen=True)
class Plan:
    """A strategy (`degrees`, and the choices in `setting`) for inputs that are known by reference.

    `calibration` is the file whose numbers are in `setting`, empty when the profiles are used as they are; `routing`
    the trace whose expert placement is priced, empty when experts are priced as evenly loaded.
    """

    model_name: str
    cluster_name: str
    setting: Setting
    degrees: Degrees
    calibration: str = ""
    routing: str = ""

    @property
    def case(self) -> Case:
        """The plan as the rules see it."""
        s = self.setting
        beside = s.teacher.model if s.teacher and s.teacher.degrees is None else None
        return Case(s.model, s.cluster, s.workload, s.choices, self.degrees, beside)

    def check(self) -> None:
        """Raise InputError with every rule that the plan breaks."""
        faults = broken(self.case)
        if faults:
            raise InputError(*faults)


def prepare(
    model: str,
    cluster: str,
    gpus: int,
    workload: Workload,
    choices: Choices,
    stack_name: str,
    calibration: str = "",
) -> Plan:
    """Resolve the names into a plan of default degrees; InputError with the faults of every input at once."""
    faults: list[Fault] = []
    found: list[Any] = []
    resolvers: list[Callable[[], Any]] = [
        lambda: catalog.load(model),
        lambda: load.cluster(cluster, gpus),
        lambda: stack.load(stack_name),
    ]
    if choices.distill_from != "none":
        resolvers.append(lambda: catalog.load(choices.distill_from))
    if calibration:
        resolvers.append(lambda: hwprofiles.calibration.load(calibration))
    resolvers.append(lambda: methods.check(choices, gpus))
    for resolve in resolvers:
        try:
            found.append(resolve())
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(*faults)
    _check_length(found[0], workload.seq_len)
    teacher = found[3] if choices.distill_from != "none" else None
    setting = Setting(methods.pruned(found[0], choices), found[1], workload, choices, found[2])
    if calibration:
        setting = calibrated(setting, found[-2])
    if teacher is not None:
        setting = replace(setting, teacher=methods.placed(setting, teacher))
    return Plan(model, cluster, setting, Degrees(gpus - choices.teacher_gpus), calibration)


def _check_length(model: Model, seq_len: int) -> None:
    """Raise InputError when the model can't take sequences of this length."""
    if model.sequence not in {0, seq_len}:
        expected = f"an image is a sequence of {model.sequence} for {model.name}"
        raise InputError(Fault("workload.seq_len", expected, seq_len))
    if 0 < model.longest < seq_len:
        expected = f"{model.name} has learned the positions of {model.longest} tokens"
        raise InputError(Fault("workload.seq_len", expected, seq_len))


def peak_flops(setting: Setting) -> float:
    """Dense peak [FLOP/s] of one GPU for the precision of the matrix multiplies."""
    return setting.gpu.peak[PRECISIONS[setting.choices.precision].peak]


def estimate_json(setting: Setting, degrees: Degrees, priced: Estimate | None = None) -> Json:
    """One estimate as CONTRACT promises it: SI units, `time` sums to the step, `memory` to the peak."""
    priced = priced or estimate(setting, degrees)
    step = float(priced.step.total)
    worst = max(priced.stages, key=lambda stage: float(stage.total))
    peak = float(worst.total)
    tokens_per_s = setting.workload.tokens_per_step / step
    model = setting.model
    per_token = model.flops_per_token(setting.workload.seq_len, causal=True)
    gpus = int(degrees.world) + setting.choices.teacher_gpus
    rate = per_token * tokens_per_s / gpus
    time = {f.name: float(getattr(priced.step, f.name)) for f in fields(priced.step)}
    repeated = time["recompute"] / time["compute"] if time["compute"] else 0.0
    capacity = setting.gpu.hbm_capacity
    low, high = interval(setting, step)
    return {
        "schema_version": SCHEMA_VERSION,
        "strategy": strategy_json(setting, degrees),
        "step_time_s": step,
        "interval_s": [low, high],
        "interval_new": novelties(setting),
        "tokens_per_s": tokens_per_s,
        "tokens_per_s_per_gpu": tokens_per_s / gpus,
        "model_flops_per_token": per_token,
        "model_flops_per_s_per_gpu": rate,
        "mfu": rate / peak_flops(setting),
        "hfu": rate / peak_flops(setting) * (1.0 + repeated),
        "peak_memory_bytes": peak,
        "memory_capacity_bytes": capacity,
        "fits": peak <= capacity,
        "time": time,
        "memory": {f.name: float(getattr(worst, f.name)) for f in fields(worst)},
        "parameters": {"total": model.total_parameters(), "active": model.total_active()},
    }


def strategy_json(setting: Setting, degrees: Degrees) -> Json:
    """The strategy's degrees and choices under their field names."""
    c, d = setting.choices, degrees
    return {
        **{axis: int(getattr(d, axis)) for axis in ("world", "tp", "pp", "vpp", "cp", "ep", "etp", "dp", "edp")},
        "micro_batch": int(d.micro_batch),
        "micro_batches": int(micro_batch_count(setting, d)),
        "replicas": int(d.replicas),
        "zero": c.zero,
        "recompute": c.recompute,
        "schedule": c.schedule,
        "sequence_parallel": c.sequence_parallel and int(d.tp) > 1,
        "order": c.order,
        "precision": c.precision,
        "optimizer": c.optimizer,
        "master": c.master,
        "prune": c.prune,
        "quantize": c.quantize,
        "distill_from": c.distill_from,
        "teacher_gpus": c.teacher_gpus,
        "teacher_topk": c.teacher_topk,
        "messages": c.messages,
    }


def model_json(model: Model, seq_len: int) -> Json:
    """The model as `plan models` describes it."""
    return catalog.describe(model, seq_len)


def cluster_json(setting: Setting) -> Json:
    """The cluster with its tiers."""
    cluster = setting.cluster
    return {
        "name": cluster.name,
        "gpus": cluster.gpus,
        "gpu": cluster.gpu.name,
        "node": cluster.node.name,
        "fabric": cluster.fabric.name,
        "gpu_peak_flops_per_s": peak_flops(setting),
        "precision": setting.choices.precision,
        "price_usd_per_gpu_hour": cluster.price * HOUR,
        "tiers": [
            {key: getattr(tier, key) for key in ("name", "size", "bandwidth", "latency", "oversubscription")}
            for tier in cluster.tiers
        ],
    }


def training_json(setting: Setting, step: float, degrees: Degrees | None = None) -> Json:
    """The whole run at `step` [s] a step without failures: steps, time, money, energy (GPU and host at full power).

    The stages of a ramp-up are priced with `degrees`, each with its own batch; without them as the last stage is.
    """
    cluster, workload = setting.cluster, setting.workload
    spent = workload.spent()
    times = [step_of(setting, degrees, stage.global_batch, step) for stage in spent]
    seconds = sum(stage.steps * time for stage, time in zip(spent, times, strict=True))
    watts = cluster.gpus * (cluster.gpu.tdp + cluster.node.power / cluster.node.gpus) * cluster.pue
    stages = [
        {"global_batch": stage.global_batch, "tokens": stage.tokens, "steps": stage.steps, "step_time_s": time}
        for stage, time in zip(spent, times, strict=True)
    ]
    return {
        "steps": sum(stage.steps for stage in spent),
        "tokens": sum(stage.tokens for stage in spent),
        "seconds": seconds,
        "cost_usd": seconds * cluster.gpus * cluster.price,
        "energy_wh": watts * seconds / HOUR,
        "tokens_per_day": workload.tokens_per_step / step * DAY,
        **({"stages": stages} if workload.ramp else {}),
    }


def step_of(setting: Setting, degrees: Degrees | None, batch: int, step: float) -> float:
    """Seconds of a step of `batch` sequences; `step` is that of the workload's own batch."""
    if batch == setting.workload.global_batch or degrees is None:
        return step
    smaller = replace(setting, workload=replace(setting.workload, global_batch=batch))
    return float(estimate(smaller, degrees).step.total)


def workload_json(workload: Workload) -> Json:
    """The workload, with critical batch and ramp-up where they are stated."""
    found: Json = {"seq_len": workload.seq_len, "global_batch": workload.global_batch, "tokens": workload.tokens}
    if workload.critical_batch:
        found["critical_batch"] = {"tokens": workload.critical_batch, "law": workload.law}
    if workload.ramp:
        found["ramp_up"] = [{"global_batch": stage.global_batch, "until": stage.until} for stage in workload.ramp]
    return found


def plan_json(plan: Plan) -> Json:
    """The core of plan.json: inputs by reference, estimate, training, provenance."""
    setting = plan.setting
    priced = estimate_json(setting, plan.degrees)
    workload = setting.workload
    return {
        "schema_version": SCHEMA_VERSION,
        "tool_version": tool_version(),
        "inputs": {
            "model": plan.model_name,
            "cluster": plan.cluster_name,
            "stack": setting.stack.name,
            **({"calibration": plan.calibration} if plan.calibration else {}),
            **({"routing": {"trace": plan.routing, **asdict(setting.routing)}} if plan.routing else {}),
        },
        "model": model_json(setting.model, workload.seq_len),
        "cluster": cluster_json(setting),
        "workload": workload_json(workload),
        "estimate": priced,
        "training": training_json(setting, priced["step_time_s"], plan.degrees),
        "provenance": provenance(plan),
    }


def provenance(plan: Plan) -> list[dict[str, str]]:
    """Name and content hash of each input."""
    setting = plan.setting
    return [
        fingerprint("model", plan.model_name, setting.model),
        fingerprint("cluster", plan.cluster_name, setting.cluster),
        fingerprint("stack", setting.stack.name, setting.stack),
        *([fingerprint("teacher", setting.choices.distill_from, setting.teacher.model)] if setting.teacher else []),
        *([fingerprint("calibration", plan.calibration, plan.calibration)] if plan.calibration else []),
        *([fingerprint("routing", plan.routing, setting.routing)] if plan.routing else []),
    ]


def read(path: Path) -> Plan:
    """The plan in a plan.json; InputError when it is not one or no longer legal."""
    return of_json(read_json(path), str(path))


def of_json(data: Json, where: str) -> Plan:
    """The plan in the object of a plan.json; InputError when it is not one or no longer legal."""
    found = stated(data, where)
    gpus = int(found.degrees.world) + found.choices.teacher_gpus
    names = (found.model, found.cluster, gpus, found.workload, found.choices, found.stack, found.calibration)
    plan = prepare(*names)
    setting = replace(plan.setting, routing=found.routing)
    plan = replace(plan, degrees=found.degrees, setting=setting, routing=found.trace)
    plan.check()
    expected = strategy_json(plan.setting, plan.degrees)
    written = data["estimate"]["strategy"]
    faults = [
        Fault(f"{where}: estimate.strategy.{name}", f"the other degrees make it {expected[name]}", written.get(name))
        for name in ("dp", "edp", "micro_batches")
        if written.get(name) != expected[name]
    ]
    if faults:
        raise InputError(*faults)
    return plan
