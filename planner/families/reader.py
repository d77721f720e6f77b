"""A reader of one Hugging Face configuration: takes typed values, remembers what it took, collects every fault.

What the family never asked for must be known to leave the shape alone; a key that sounds structural and isn't known
is refused by name, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hwprofiles.faults import Fault, InputError
from planner.residual_network import ResidualNetwork
from planner.shape import LARGEST, MOST_LAYERS, Shape

Config = Mapping[str, Any]
STRUCTURAL = re.compile(
    "attention|attn|bias|block|compress|conv|d_ff|d_kv|d_model|depth|dim|expert|ffn|group|head|hidden|index_|intermediate"
    "|kernel|kv_|layer|mlp|moe|n_embd|n_inner|norm|parallel|rank|residual|share|size|ssm|tie_|vocab|width|window"
)
_NEUTRAL = """
    attention_dropout attention_multiplier attention_softmax_in_fp32 attn_implementation attn_logit_softcapping
    attn_pdrop attn_scale attn_temperature_tuning aux_loss_alpha chunk_size_feed_forward clip_qkv embd_pdrop
    embedding_dropout ep_size final_logit_softcapping floor_scale hidden_act hidden_activation hidden_dropout
    hidden_dropout_prob initializer_range layer_norm_eps layer_norm_epsilon layerdrop max_position_embeddings
    max_window_layers moe_norm_min moe_renormalize n_group norm_eps norm_epsilon norm_topk_prob num_expert_group
    output_attentions output_hidden_states output_router_logits pruned_heads resid_pdrop residual_dropout
    residual_multiplier rms_norm_eps router_aux_loss_coef scale_attention_softmax_in_fp32
    scale_attn_by_inverse_layer_idx scale_attn_weights scoring_func topk_group topk_method
"""
NEUTRAL = frozenset(_NEUTRAL.split())
"""Keys that sound structural but change neither parameters nor work."""


class Reader:
    """Typed access to `config`; `where` names the file in faults, `name` the model."""

    def __init__(self, config: Config, where: str, name: str) -> None:
        """Nothing is read yet."""
        self.config, self.where, self.name = config, where, name
        self.taken: set[str] = set()
        self.faults: list[Fault] = []

    def fault(self, key: str, expected: str, value: object = None) -> None:
        """Note that the value of a key can't be used."""
        self.faults.append(Fault(f"{self.where}: {key}", expected, value))

    def get(self, *keys: str) -> Any:
        """The first of the aliases that is present and not null, else None; all count as known."""
        self.taken.update(keys)
        return next((self.config[key] for key in keys if self.config.get(key) is not None), None)

    def count(self, *keys: str, default: int | None = None, least: int = 1, most: int = LARGEST) -> int:
        """A whole number from `least` to `most`; a missing key without default is a fault."""
        value = self.get(*keys)
        if value is None and default is not None:
            return default
        if value is None:
            self.fault(keys[0], "is missing and has no default")
        elif type(value) is not int or not least <= value <= most:
            self.fault(keys[0], f"expected a whole number from {least} to {most}", value)
        else:
            return value
        return max(least, 1)

    def optional(self, key: str) -> int:
        """A whole number; null means none, but a missing key is a fault."""
        return self.count(key, default=0 if key in self.config else None, least=0)

    def flag(self, *keys: str, default: bool = False) -> bool:
        """True or false."""
        value = self.get(*keys)
        if value is None:
            return default
        if type(value) is not bool:
            self.fault(keys[0], "expected true or false", value)
        return bool(value)

    def items(self, key: str, kind: type, length: int | None = None) -> list[Any] | None:
        """A list of values of one kind, of the given length; None when absent."""
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or any(type(item) is not kind for item in value):
            self.fault(key, f"expected a list of {'numbers' if kind is int else 'names'}", value)
        elif length is not None and len(value) != length:
            self.fault(key, f"expected one entry for each of the {length} layers", len(value))
        else:
            return value
        return None

    def part(self, key: str) -> Reader:
        """The nested object under a key, empty when absent; its faults are this reader's."""
        value = self.get(key)
        if value is not None and not isinstance(value, dict):
            self.fault(key, "expected an object", value)
        inner = Reader(value if isinstance(value, dict) else {}, f"{self.where}: {key}", self.name)
        inner.faults = self.faults
        return inner

    def require(self, **understood: object) -> None:
        """Refuse a value other than the one for which the family's shape is known (null counts as that one)."""
        for key, wanted in understood.items():
            value = self.get(key)
            if value is not None and value != wanted:
                self.fault(key, f"only {wanted!r} is understood for this family", value)

    def ignore(self, *keys: str) -> None:
        """Keys of this family that leave parameters and work alone."""
        self.taken.update(keys)

    def refuse_unknown(self) -> None:
        """Note every key that is structural and not understood; null, false and empty switch nothing on."""
        for key, value in self.config.items():
            known = key in self.taken or key in NEUTRAL or not STRUCTURAL.search(key)
            if not known and value not in (None, False, []):
                self.fault(key, "may change the shape and isn't understood for this family", value)

    def close(self) -> None:
        """Raise InputError if anything was wrong or not understood."""
        self.refuse_unknown()
        if self.faults:
            raise InputError(*self.faults)


@dataclass(frozen=True)
class Family:
    """One shape of configuration: the `model_type`s that have it and the function that reads it."""

    name: str
    model_types: tuple[str, ...]
    read: Callable[[Reader], Shape | ResidualNetwork]


def block(reader: Reader, **known: Any) -> dict[str, Any]:
    """The fields that most families spell alike; `known` takes precedence and isn't read."""
    readers: dict[str, Callable[[], Any]] = {
        "layers": lambda: reader.count("num_hidden_layers", "n_layer", "n_layers", most=MOST_LAYERS),
        "hidden": lambda: reader.count("hidden_size", "n_embd", "n_embed", "d_model"),
        "vocab": lambda: reader.count("vocab_size"),
        "heads": lambda: reader.count("num_attention_heads", "n_head", "n_heads"),
        "kv_heads": lambda: reader.count("num_key_value_heads", default=0),
        "head_dim": lambda: reader.count("head_dim", default=0),
        "ffn": lambda: reader.count("intermediate_size"),
        "tied": lambda: reader.flag("tie_word_embeddings"),
    }
    fields = {key: known[key] if key in known else read() for key, read in readers.items()}
    return {"name": reader.name, **fields, **known}


def attention_bias(reader: Reader, *, default: bool = False, output: bool = True) -> dict[str, Any]:
    """One switch for the biases of q, k, v and, with `output`, of the output projection."""
    bias = reader.flag("attention_bias", default=default)
    return {"qkv_bias": bias, "out_bias": bias and output}


def reaches(
    reader: Reader, layers: int, default: list[str], window: int = 0, key: str = "sliding_window"
) -> dict[str, Any]:
    """Reach of each layer from `layer_types`, else `default` repeated; windows need their length."""
    words = {
        "full_attention": "full",
        "sliding_attention": "window",
        "chunked_attention": "window",
        "linear_attention": "linear",
    }
    given = reader.items("layer_types", str, layers)
    for word in set(given or ()) - set(words):
        reader.fault("layer_types", f"only {', '.join(words)} are understood", word)
    cycle = [words.get(word, "full") for word in given] if given else default
    length = reader.count(key, default=window, least=int("window" in cycle))
    return {"reaches": tuple(cycle), "window": length if "window" in cycle else 0}


def sliding(reader: Reader, *, window: int = 0, switch: bool | None = None) -> dict[str, Any]:
    """One window for all layers when the file gives one and, if the family has a switch, that is on."""
    length = reader.count("sliding_window", default=window, least=0)
    on = length > 0 and (switch is None or switch)
    return {"reaches": ("window",) if on else ("full",), "window": length if on else 0}


def mixture(reader: Reader, experts: tuple[str, ...], topk: tuple[str, ...], width: str) -> dict[str, Any]:
    """Experts, experts per token and expert width under the family's keys."""
    return {"experts": reader.count(*experts), "topk": reader.count(*topk), "moe_ffn": reader.count(width)}


def listed_experts(reader: Reader, layers: int) -> dict[str, Any] | None:
    """Dense layers from the list `mlp_layer_types` that newer files carry; None when absent."""
    given = reader.items("mlp_layer_types", str, layers)
    if given is None:
        return None
    for word in set(given) - {"dense", "sparse"}:
        reader.fault("mlp_layer_types", "only dense and sparse are understood", word)
    return {"dense_layers": tuple(i for i, word in enumerate(given) if word == "dense")}
