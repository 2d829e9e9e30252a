"""Write docs/methods.md from the registry: ``python docs/make_methods.py``."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path

import timm
import torch

from peft_dense import papers
from peft_dense.backbones import BackboneInfo, examine
from peft_dense.dense import DenseModel
from peft_dense.injection import PASCAL_CONTEXT, inject
from peft_dense.methods import Method, method, methods
from peft_dense.tasks import task

PAGE = Path(__file__).parent / "methods.md"
SWIN_B = "swin_base_patch4_window7_224"

# By the name of a method; one that isn't here takes that of the method it derives from, if any.
EQUATIONS = {
    "single_task_full": "theta_t = theta_0 + delta_t   all weights train",
    "multitask_full": "theta = theta_0 + delta   all weights train",
    "decoders_only": "F_t = F   the backbone's stages",
    "bitfit": "y = x W + b_t   b_t trains",
    "shared_bitfit": "y = x W + b   b trains",
    "relative_bias": "y = softmax(q k' / sqrt(d) + B_t) v   B_t trains",
    "shared_relative_bias": "y = softmax(q k' / sqrt(d) + B) v   B trains",
    "vpt_deep": "[-, y] = attention([norm1(P_tl), x])   P_tl (P, d) trains, in every block l",
    "vpt_shallow": "[-, y] = attention([norm1(P_t), x])   P_t (P, d) trains, in the first block",
    "lora": "y = x W + alpha / r * x A_t B_t   A_t (in, r), B_t (r, out)",
    "shared_lora": "y = x W + alpha / r * x A B   A (in, r), B (r, out)",
    "dora": "y = x (m V / |V|), V = W + alpha / r * A B   m and |V| an output channel each",
    "ssf": "y' = scale * y + shift   after stem, norms and linears",
    "adapter": "y = mlp(x) + up_t(relu(down_t(norm_t(x))))   down (d, n), up (n, d)",
    "shared_adapter": "y = mlp(x) + up(relu(down(norm(x))))   down (d, n), up (n, d)",
    "adaptformer": "y = mlp(x) + 0.1 up(drop(relu(down(x))))   down (d, width), up (width, d)",
    "convpass": "y = mlp(x) + scale up(act(conv(act(down(x)))))   down (d, h), up (h, d), conv 3x3",
    "mona": """\
u = a * norm(x) + b * x                       x = mlp(...), before the sum; a and b (d,) train
v = down(u)                                   down (d, n)
v = v + (dw3(v) + dw5(v) + dw7(v)) / 3        depthwise filters of three sizes
y = x + up(gelu(v + mix(v)))                  mix 1x1 (n, n), up (n, d)""",
    "low_rank_adapter": "adapter with W = P_t Q_t   down and up each, r = floor(n / 4)",
    "phm": "adapter with GELU and W = sum_i A_ti (x) B_tli   A_ti (s, s), the same in all layers l",
    "compacter": "phm with B_tli = p_tli q_tli'   rank one",
    "hyperformer": """\
v_tl = norm(W_l2 relu(W_l1 z_t))   z_t the task's embedding
W_tl = reshape(v_tl H_l)           down and up each: equation 2
Every W and H is gain / inputs times its parameter: a constant of ours (FanInLinear)""",
    "polyhistor": """\
v_tl = norm(W_l2 relu(W_l1 z_t))      z_t the task's embedding
W_tl = (v_tl H^p_l) (v_tl H^q_l)'     (d, r) times (r, n): equation 3
Every W and H is gain / inputs times its parameter: a constant of ours (FanInLinear)""",
    "polyhistor_lite": """\
v_tlj = norm(W_2 relu(W_1 [z_t, e_lj]))   j = 1 ... s, the block's scale
K_tlj = (v_tlj H^p) (v_tlj H^q)'          a template: equation 5
W_tl = sum_j S_lj (x) K_tlj               S_lj (s, s): equation 6
Every W and H is gain / inputs times its parameter: a constant of ours (FanInLinear)""",
    "vmt": """\
h_l = c relu(norm(x) W_down) W_up                          equation 3; c = 4 is ours
y = mlp(x) + lambda h_l                                    the stream, for all tasks
F_t = F + sum_l (alpha_tl * (1 - lambda) h_l + beta_tl)    a task's stages: equations 4, 5""",
    "vmt_lite": """\
vmt with W_down = sum_i S_i (x) D_i and W_up = sum_i S_i (x) U_i   equation 6
S_i (m, m) shared by the two, c = 1""",
}

INTRO = f"""\
<!-- Made by `python docs/make_methods.py`; edit docstrings or papers.py. -->

# All methods

What each method does, how many parameters it trains, and how its count compares with the papers'.
Counts are trainable parameters in the encoder, heads excluded, with four tasks and the method's
default options. `peft-dense params MODEL` prints them for any backbone. *Passes* are forward passes
through the backbone for T tasks.

In equations and counts, d is the width of a block, n = d / rho the width of its bottleneck, r a
rank, T the number of tasks, t a task, l a layer, s the size of Kronecker factors, and (x) the
Kronecker product. A *site* is an attention or MLP to which a method adds something; sums in
counts run over the sites. A *path* is a copy of the backbone that shares its frozen weights
([Concepts](concepts.md)).

A method that is in the papers' tables has a table of its own below. It gives our counts, and the
printed ones in millions, for Swin-Tiny, of the encoder and with the heads (*all*). The difference
is ours minus theirs, in millions, or `ok` if ours rounds to theirs. *Certainty* says how sure it is
that the authors ran this definition: high, good, medium, low or undetermined
([how it was found](papers.md)). `peft-dense params --papers` prints all rows. The tables are:

{chr(10).join(f"- {short}: {place}" for short, place in papers.PLACES.items())}
"""

FILTER = '<div class="filter"></div>'
"""What docs/javascripts/filter.js fills, for the table below it."""


def page() -> str:
    """Write the page as a string."""
    with torch.device("meta"):
        tiny = timm.create_model(papers.BACKBONE)
        infos = {"Swin-T": examine(tiny), "Swin-B": examine(timm.create_model(SWIN_B))}
        bare = inject(tiny, "decoders_only", tasks=PASCAL_CONTEXT)
        heads = DenseModel(bare, {t: task(t).channels for t in PASCAL_CONTEXT}).ledger().heads
    overview = ["| method | passes | Swin-T | Swin-B | paper |", "|---|:-:|--:|--:|---|"]
    sections = []
    for name in methods():
        counts = {backbone: count(name, info)[1] for backbone, info in infos.items()}
        how = method(name)
        passes = "1" if how.one_path else "T"
        cells = " | ".join(f"{number:,}" for number in counts.values())
        overview.append(f"| [`{name}`](#{name}) | {passes} | {cells} | {how.paper} |")
        sections += ["", *section(how, infos, heads)]
    return "\n".join([INTRO, FILTER, "", *overview, *sections, ""])


def section(how: Method, infos: dict[str, BackboneInfo], heads: int) -> list[str]:
    """Write what is known of one method."""
    lines = [f"## {how.name}", "", idea(how), ""]
    equation = find_equation(how)
    if equation:
        lines += ["```text", equation, "```", ""]
    lines += [f"- Source: {how.paper}."]
    lines += [f"- Passes: {'one for all tasks' if how.one_path else 'one per task'}."]
    lines += [f"- Count: {markdown(inspect.getdoc(type(how).count) or '')}"]
    for backbone, info in infos.items():
        settled, number = count(how.name, info)
        changed = ", ".join(
            f"{f.name} = {getattr(settled, f.name)}"
            for f in fields(how)
            if getattr(settled, f.name) != getattr(how, f.name)
        )
        lines += [f"- On {backbone}: {number:,}{f' ({changed})' if changed else ''}."]
    about = documented_options(type(how))
    if fields(how):
        lines += ["", "| option | default | meaning |", "|---|---|---|"]
        for f in fields(how):
            meaning = about.get(f.name, "").replace("|", "\\|")
            lines += [f"| `{f.name}` | `{getattr(how, f.name)!r}` | {meaning} |"]
    return [*lines, "", *evidence(how.name, infos["Swin-T"], heads)]


def evidence(name: str, info: BackboneInfo, heads: int) -> list[str]:
    """Set the counts beside the papers' cells, and say what is certain and what assumed."""
    rows = [row for row in papers.ROWS if row.method == name]
    if not rows:
        return ["It is in neither paper's tables, so there is no printed count to compare with."]
    lines = [
        "| setting | encoder | printed | difference "
        "| all | printed | difference | table | certainty |",
        "|---|--:|--:|---|--:|--:|---|---|---|",
    ]
    notes = []
    for row in rows:
        encoder = count(name, info, **row.options)[1]
        setting = row.label.removeprefix(name).strip()
        cells = [
            f"`{setting}`" if setting else "defaults",
            f"{encoder:,}",
            row.encoder,
            papers.verdict(encoder, row.encoder),
            f"{encoder + heads:,}",
            row.total or "",
            papers.verdict(encoder + heads, row.total),
            row.places,
            row.certainty,
        ]
        lines.append(f"| {' | '.join(cells)} |")
        if row.note:
            fits = " So counted: {:,} and {:,}.".format(*row.fits) if row.fits else ""
            notes += ["", f"{f'`{setting}`: ' if setting else ''}{row.note}{fits}"]
    return lines + notes


def count(name: str, info: BackboneInfo, **options: object) -> tuple[Method, int]:
    """Settle a method for a backbone and count its parameters by the closed formula."""
    how = method(name, **options).resolve(info)
    return how, how.count(info, len(PASCAL_CONTEXT))


def find_equation(how: Method) -> str | None:
    """Look a method's equation up, or that of the method it derives from."""
    names = [cls.__dict__.get("name") for cls in type(how).__mro__]
    return next((EQUATIONS[name] for name in names if name in EQUATIONS), None)


def idea(how: Method) -> str:
    """Take what the docstring says before its first section."""
    text = re.split(r"\n(?:Args|Raises|Example):", inspect.getdoc(type(how)) or "")[0]
    return "\n\n".join(markdown(paragraph) for paragraph in text.strip().split("\n\n"))


def documented_options(cls: type[Method]) -> dict[str, str]:
    """Take what docstrings say of options, a class's own before those it derives from."""
    found: dict[str, str] = {}
    for base in cls.__mro__:
        text = inspect.cleandoc(base.__dict__.get("__doc__") or "")
        args = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
        for name, meaning in re.findall(
            r"^    (\w+): (.*?)(?=^    \w|\Z)", args[1] if args else "", re.MULTILINE | re.DOTALL
        ):
            found.setdefault(name, markdown(meaning))
    return found


def markdown(text: str) -> str:
    """Join a docstring's lines and write its code and references as Markdown does."""
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", " ".join(text.split()))
    return text.replace("``", "`")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
