"""The batch of a run against its tokens: what the critical batch makes of it, and the stages of a ramp-up."""

from __future__ import annotations

from hwprofiles.quantity import format as human
from planner.batch_size import CURVE, GROWS, TRADE, steps_to_target, tokens_to_target
from planner.explain.words import PERCENT
from planner.plan import DAY, Json, Plan, step_of


def batch(plan: Plan, step: float) -> Json | None:
    """Tokens and steps to the target against the batch [tokens], and the words; None without a critical batch or ramp.

    `curve`: what other batches would take, from a 64th of the critical one to 64 times it; `run` is this plan.
    """
    work = plan.setting.workload
    critical = work.critical_batch
    if not critical and not work.ramp:
        return None
    spent = work.spent()
    run = {
        "batch": work.tokens_per_step,
        "tokens": sum(stage.tokens for stage in spent),
        "tokens_over_least": sum(stage.tokens for stage in spent) / work.tokens,
        "steps": sum(stage.steps for stage in spent),
    }
    curve = [
        {
            "batch": share * critical,
            "tokens": float(tokens_to_target(work.tokens, share * critical, critical)),
            "tokens_over_least": 1.0 + share,
            "steps": float(steps_to_target(work.tokens, share * critical, critical)),
            "steps_over_least": 1.0 + 1.0 / share,
        }
        for share in CURVE
        if critical
    ]
    return {
        "critical_batch": critical or None,
        "law": work.law or None,
        "source": TRADE if critical else None,
        "minimum_tokens": work.tokens,
        "run": run,
        "curve": curve,
        "words": [*_words(plan, run), *_stages(plan, step)],
    }


def _words(plan: Plan, run: Json) -> list[str]:
    """The law and what it makes of the plan's batch."""
    work = plan.setting.workload
    if not work.critical_batch:
        return []
    more = PERCENT * (run["tokens"] / work.tokens - 1.0)
    ratio, fewest = run["batch"] / work.critical_batch, work.tokens / work.critical_batch
    step, critical = human(float(run["batch"]), ""), human(work.critical_batch, "")
    size = f"A step has {step} tokens, {ratio:.2g} times the critical batch of {critical} ({work.law})."
    takes = (
        f"By {TRADE}, the run takes {human(run['tokens'], '')} tokens, {more:.0f} % more than very small batches would"
    )
    return [size, f"{takes}, and {run['steps']:,} steps, of which very large ones would need {fewest:,.0f}.", GROWS]


def _stages(plan: Plan, step: float) -> list[str]:
    """One sentence for each stage of a ramp-up."""
    setting, found = plan.setting, []
    if not setting.workload.ramp:
        return []
    for stage in setting.workload.spent():
        each = step_of(setting, plan.degrees, stage.global_batch, step)
        found.append(
            f"{human(stage.tokens, '')} tokens in {stage.steps:,} steps of {stage.global_batch:,} sequences, "
            f"{human(each, 's')} each: {stage.steps * each / DAY:,.1f} days."
        )
    return found
