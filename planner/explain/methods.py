"""What a plan's training methods buy and risk: the plan beside the same one without them, both priced."""

from __future__ import annotations

from dataclasses import replace

from hwprofiles.quantity import format as human
from planner import catalog, compression
from planner.cost.update import update_flops
from planner.estimate import estimate
from planner.explain.words import PERCENT
from planner.layout import layer_kinds, layout
from planner.optimizers import MASTERS
from planner.plan import Json, Plan, training_json
from planner.precision import PRECISIONS
from planner.provenance import Fact
from planner.rules import broken
from planner.setting import Setting
from planner.strategy import Choices

PLAIN = Choices()
NAMES = ("optimizer", "master", "prune", "quantize", "messages", "distill_from")
DISTILLING = (
    Fact(
        "DistilBERT, 40 % smaller than its teacher, kept 97 % of its scores on GLUE",
        "Sanh 2019, arXiv:1910.01108",
    ),
    Fact(
        "the largest logits alone are a biased estimate of the teacher and teach less well than sampled ones (students "
        "of 300M to 3B parameters)",
        "Anshumann 2025, arXiv:2503.16870",
    ),
    Fact(
        "a larger teacher is not always a better one: a student much smaller than its teacher learned less from it",
        "Cho and Hariharan 2019, arXiv:1910.01348",
    ),
)


def methods(plan: Plan) -> Json | None:
    """The methods other than the plain ones, what they buy and what they risk; None where all are plain.

    `plain` and `plan`: step [s], peak memory [B], stored bytes [B], update FLOP, the run's seconds and USD. The plain
    plan has the same degrees (null where they are illegal for it), Adam with fp32 masters, bf16, the whole model.
    """
    choices = plan.setting.choices
    chosen = {name: getattr(choices, name) for name in NAMES if getattr(choices, name) != getattr(PLAIN, name)}
    if not chosen:
        return None
    here = figures(plan)
    other = plain(plan)
    before = None if broken(other.case) else figures(other)
    return {
        "chosen": chosen,
        "plain": before,
        "plan": here,
        "buys": buys(plan, here, before),
        "risks": [{"text": fact.text, "source": fact.source} for fact in facts(plan)],
        "sources": sources(plan.setting),
    }


def plain(plan: Plan) -> Plan:
    """The same degrees without the methods; a student alone on its own GPUs."""
    setting, old = plan.setting, plan.setting.choices
    precision = "bf16" if old.quantize == "fp8" else old.precision
    choices = replace(
        old, precision=precision, teacher_gpus=0, teacher_topk=0, **{name: getattr(PLAIN, name) for name in NAMES}
    )
    model = catalog.load(plan.model_name) if setting.pruning.name == "experts" else setting.model
    cluster = replace(setting.cluster, gpus=int(plan.degrees.world))
    return replace(plan, setting=replace(setting, model=model, choices=choices, cluster=cluster, teacher=None))


def figures(plan: Plan) -> Json:
    """Step, memory, stored bytes, FLOP of an update, and the run of one plan."""
    setting = plan.setting
    priced = estimate(setting, plan.degrees)
    step = float(priced.step.total)
    run = training_json(setting, step, plan.degrees)
    kinds = layer_kinds(setting.model)
    total = layout(setting.model, setting.workload.seq_len, int(plan.degrees.pp), int(plan.degrees.vpp)).total
    updates = sum(n * update_flops(kind, setting) for kind, n in zip(kinds, total, strict=True))
    return {
        "step_time_s": step,
        "peak_memory_bytes": float(priced.peak),
        "stored_bytes": stored_bytes(setting),
        "update_flops": updates,
        "seconds": run["seconds"],
        "cost_usd": run["cost_usd"],
    }


def stored_bytes(setting: Setting) -> float:
    """Bytes [B] of the finished model: quantized where it is, else pruned; the smaller of both where it is both."""
    value = PRECISIONS[setting.choices.precision].value
    small = [method for method in setting.compressions if method.name != "experts"] or [compression.get("none")]
    return min(float(method.stored_bytes(setting.model, value)) for method in small)


def buys(plan: Plan, here: Json, before: Json | None) -> list[str]:
    """The differences in sentences, the re-priced plain plan first."""
    if before is None:
        return ["The same degrees are illegal for the plain plan, so nothing is compared."]
    rows = (
        ("a step", "step_time_s", "s"),
        ("the fullest GPU", "peak_memory_bytes", "iB"),
        ("the stored model", "stored_bytes", "B"),
        ("the whole run", "cost_usd", "USD"),
    )
    told = [
        f"{name}: {human(here[key], unit)} for {human(before[key], unit)} without them "
        f"({PERCENT * (here[key] / before[key] - 1.0):+.1f} %)"
        for name, key, unit in rows
    ]
    return [f"{line[0].upper()}{line[1:]}." for line in told] + notes(plan)


def notes(plan: Plan) -> list[str]:
    """What the figures leave out, for the methods in use."""
    setting, found = plan.setting, []
    if setting.pruning.sparse:
        found.append(
            "2:4 multiplies forward and for the input gradient run at the measured gain, not at twice the rate; the "
            "weight gradient stays dense, and while it trains the dense weights and both packed copies are held."
        )
        if not setting.pruning.sparse_experts and setting.model.experts:
            found.append(
                "Routed experts are pruned too, but no common library multiplies them sparse: they gain no time."
            )
    if setting.pruning.masked:
        found.append("Unstructured zeros gain no time on tensor cores: only the stored model is smaller.")
    if setting.quantizing.kind != "none" and (setting.pruning.sparse or setting.pruning.masked):
        found.append("Stored is the smaller of the pruned and the quantized form; no format that is both is counted.")
    if setting.quantizing.recast:
        found.append("Integer weights are smaller in storage and inference; training for them costs the fake rounding.")
    if setting.teacher is not None:
        where = setting.teacher.degrees
        cut = (
            f"on {where.world:,} GPUs of its own (tp {where.tp}, pp {where.pp}, ep {where.ep})"
            if where
            else "beside it"
        )
        few = setting.choices.teacher_topk
        sent = f"a token is compared by its {few:,} largest logits" if few else "all of its logits are compared"
        found.append(f"The teacher {setting.teacher.model.name} runs forward {cut}; {sent}.")
        if setting.teacher.model.vocab != setting.model.vocab:
            sizes = f"{setting.teacher.model.vocab:,} and {setting.model.vocab:,}"
            found.append(f"The vocabularies differ ({sizes}): logits compare only where tokens are matched.")
    return found


def facts(plan: Plan) -> list[Fact]:
    """What is published on the methods in use."""
    setting = plan.setting
    found = [*setting.optimizer.facts, *MASTERS[setting.choices.master]]
    for method in setting.compressions:
        found += method.facts
    return [*found, *(DISTILLING if setting.teacher else ())]


def sources(setting: Setting) -> list[str]:
    """Where bytes, FLOP and time of the methods are from."""
    return [setting.optimizer.source, *(method.source for method in setting.compressions)]
