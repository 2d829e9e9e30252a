"""What the probe can't see of a backbone, one file per family.

Most backbones need none: sites, widths, layouts and stages are read off forwards on torch's
``meta`` device. A family says what shapes don't tell: how stage outputs are reached where the model
returns none, in which order tokens lie where it isn't raster order, and which attributes tie a
model to one image size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

__all__ = ["Family", "family_of", "register_family"]

_ROLES = {
    "qkv": ("qkv", "q", "k", "v", "kv", "q_proj", "k_proj", "v_proj", "query", "key", "value"),
    "proj": ("proj", "out_proj", "o_proj"),
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """Describe what the probe can't see of a family of backbones.

    The defaults fit most models of timm.

    Args:
        features: Stage outputs of a model, ``(model, images) -> [(B, C_i, H_i, W_i), ...]``, finest
            first; maps (B, H, W, C) and tokens (B, N, C) will do too. None: what the model itself
            returns from ``forward_intermediates`` or its forward.
        to_map: Map of a site's tokens where they don't lie in raster order,
            ``(model, site name, tokens, image) -> (B, C, H, W)``.
        flexible: Edit a *clone* of the model in place so that it takes any image size.
        mlp: Attribute names under which blocks keep their feed-forward part.
        attn: Attribute names under which blocks keep their token mixer.
        roles: Attribute names of an attention's linears, for the roles ``qkv`` and ``proj``.
        positions: Names of the parameters or modules that give attention its relative positions.

    Shape:
        ``features``: ``(B, C, H, W) ->`` a list of ``(B, C_i, H_i, W_i)``, finest first

    Example:
        >>> def features(model, x):
        ...     return [x := stage(x) for stage in model.stages]
        >>> family = Family(features=features, mlp=("feed_forward",))
    """

    features: Callable[[nn.Module, Tensor], Sequence[Tensor]] | None = None
    to_map: Callable[[nn.Module, str, Tensor, Tensor], Tensor] | None = None
    flexible: Callable[[nn.Module], None] | None = None
    mlp: tuple[str, ...] = ("mlp", "ffn", "feed_forward", "mlp_channels")
    attn: tuple[str, ...] = ("attn", "attention", "self_attn", "token_mixer")
    roles: dict[str, tuple[str, ...]] = field(default_factory=lambda: dict(_ROLES))
    positions: tuple[str, ...] = (
        "relative_position_bias_table",
        "cpb_mlp",
        "rel_pos",
        "rel_pos_h",
        "rel_pos_w",
        "attention_biases",
    )


_FAMILIES: list[tuple[type[nn.Module] | str, Family]] = []


def register_family(model_class: type[nn.Module] | str, family: Family) -> None:
    """Make ``inject`` use ``family`` for models of ``model_class``; the latest family wins.

    Args:
        model_class: A class, or its full dotted name, which needs no import.
        family: What the probe can't see of its models.

    Example:
        >>> class Mine(nn.Identity):
        ...     pass
        >>> register_family(Mine, Family(mlp=("feed_forward_net",)))
        >>> family_of(Mine()).mlp
        ('feed_forward_net',)
    """
    _FAMILIES.insert(0, (model_class, family))


def family_of(model: nn.Module) -> Family:
    """Return the family registered for ``model``'s class, or the defaults.

    Args:
        model: Any backbone.

    Example:
        >>> family_of(nn.Identity()) == Family()
        True
    """
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(model).__mro__}
    for kind, row in _FAMILIES:
        if kind in names if isinstance(kind, str) else isinstance(model, kind):
            return row
    return Family()
