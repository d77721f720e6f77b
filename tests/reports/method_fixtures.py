"""Training methods and batch of a made-up plan."""

from typing import Any


def methods(priced: dict[str, Any], seconds: float) -> dict[str, Any]:
    """A plan that prunes, beside the plain one."""
    plain = {
        "step_time_s": 1.02 * priced["step_time_s"], "peak_memory_bytes": 0.99 * priced["peak_memory_bytes"],
        "stored_bytes": 1.8e12, "update_flops": 1.3e13, "seconds": 1.02 * seconds, "cost_usd": 3.1e7,
    }  # fmt: skip
    here = {**plain, "step_time_s": priced["step_time_s"], "stored_bytes": 1.0e12, "seconds": seconds}
    return {
        "chosen": {"prune": "2:4"}, "plain": plain, "plan": here,
        "buys": ["A step: 9.8 s for 10 s without them (-2.0 %)."],
        "risks": [{"text": "2:4 networks kept their accuracy <b>", "source": "arXiv:2104.08378"}],
        "sources": ["arXiv:2104.08378"],
    }  # fmt: skip


def batch(tokens: float) -> dict[str, Any]:
    """Tokens against the batch, the plan at half of a critical batch of 16M tokens."""
    rows = [
        {"batch": share * 16e6, "tokens": tokens * (1 + share), "tokens_over_least": 1 + share,
         "steps": tokens / 16e6 * (1 + 1 / share), "steps_over_least": 1 + 1 / share}
        for share in (0.0625, 0.25, 1.0, 4.0, 16.0)
    ]  # fmt: skip
    run = {"batch": 8e6, "tokens": 1.5 * tokens, "tokens_over_least": 1.5, "steps": 1.5 * tokens / 8e6}
    return {
        "critical_batch": 16e6, "law": "as stated", "source": "McCandlish 2018", "minimum_tokens": tokens,
        "run": run, "curve": rows, "words": ["A step has 8M tokens, 0.5 times the critical batch of 16M."],
    }  # fmt: skip
