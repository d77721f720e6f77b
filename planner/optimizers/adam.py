"""Adam and its kin: two moments a parameter (Kingma 2014, arXiv:1412.6980; AdamW: Loshchilov 2017, arXiv:1711.05101).

FLOP: first moment 3, second 4, root, division and epsilon 3, step 3; decoupled weight decay 1 more.
"""

from __future__ import annotations

from planner.optimizers.base import Elementwise, Optimizer
from planner.provenance import Fact

BLOCK = 256  # values that share the fp32 scale of an 8-bit moment (torchao, bitsandbytes)

SHELF = (
    Optimizer("adam", Elementwise(8.0, 13.0), "Rajbhandari 2020 (ZeRO): two fp32 moments; reads 16, writes 14 B"),
    Optimizer(
        "adamw", Elementwise(8.0, 14.0), "Loshchilov 2017, arXiv:1711.05101: states of Adam, decay on the weight"
    ),
    Optimizer(
        "adam-bf16",
        Elementwise(4.0, 13.0),
        "DeepSeek-V3 report 3.3.3: bf16 moments; reads 12, writes 10 B",
        facts=(Fact("DeepSeek-V3 was trained with bf16 moments and fp32 masters", "arXiv:2412.19437, section 3.3.3"),),
    ),
    Optimizer(
        "adam-8bit",
        Elementwise(2.0 * (1.0 + 4.0 / BLOCK), 21.0),
        "Dettmers 2021, arXiv:2110.02861: a byte a moment, a scale a block; eight FLOP more to read and write them",
        facts=(
            Fact(
                "8-bit Adam kept the results of 32-bit Adam on language models up to 1.5B parameters, translation and "
                "vision, with embeddings left in 32 bits",
                "Dettmers 2021, arXiv:2110.02861",
            ),
        ),
    ),
)
