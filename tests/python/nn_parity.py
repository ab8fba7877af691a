"""Layers, losses and batch mixing against Python torch and torchvision: outputs and all gradients.

Layers run in training mode with dropout 0. float32 takes the fused attention kernel on the C++ side, float64 the one
composed of operators; both must agree with Python.
"""

import itertools
import sys
from unittest import mock

import parity
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms import v2

TOLERANCE = {"attention": 1e-5, "encoder": 1e-5, "gru": 1e-5, "loss": 1e-6, "mix": 1e-6}
TOLERANCE_FLOAT64 = 1e-12


class Reference:
    """A case: what the driver is given, and a function that computes what it should answer."""

    def __init__(self, kind, model, inputs, settings, answer, dtype=torch.float32):
        self.kind, self.model, self.inputs, self.answer, self.dtype = kind, model.to(dtype), inputs, answer, dtype
        self.settings = dict(settings, kind=kind, dtype=str(dtype).removeprefix("torch."))

    def tolerance(self):
        return TOLERANCE_FLOAT64 if self.dtype == torch.float64 else TOLERANCE[self.kind]


def gradients(model, output, out_grad, leaves):
    model.zero_grad()
    output.backward(out_grad)
    found = {"grad." + name: leaf.grad for name, leaf in leaves.items()}
    found |= {"grad." + name: parameter.grad for name, parameter in model.named_parameters()}
    return {"out": output.detach()} | found


def disturbed(model):
    """Biases and norms away from their initial 0 and 1, so that a mix-up shows."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def masks(kind, heads, batch, queries, keys, dtype):
    """{"key_padding": ..., "attention": ...} of the named kind; every query keeps a key."""
    made = {}
    if "padding" in kind:
        made["key_padding"] = torch.arange(keys).expand(batch, keys) >= torch.randint(2, keys, (batch, 1))
    if "causal" in kind:
        made["attention"] = torch.ones(queries, keys).triu(1).bool()
    if "float" in kind:
        made["attention"] = torch.randn(queries, keys, dtype=dtype)
    if "heads" in kind:
        made["attention"] = torch.randn(batch * heads, queries, keys, dtype=dtype)
    return made


def mask_settings(made):
    return {"has_" + name: name in made for name in ("key_padding", "attention")}


def attention_case(inputs, mask, embed_dim, num_heads, queries, keys, kdim=0, vdim=0, bias=True, dtype=torch.float32):
    batch = 3
    layer = disturbed(
        nn.MultiheadAttention(embed_dim, num_heads, bias=bias, kdim=kdim or None, vdim=vdim or None, batch_first=True)
    )
    keys = queries if inputs == "query" else keys
    given = {
        "query": torch.randn(batch, queries, embed_dim, dtype=dtype),
        "key": torch.randn(batch, keys, kdim or embed_dim, dtype=dtype),
        "value": torch.randn(batch, keys, vdim or embed_dim, dtype=dtype),
        "out_grad": torch.randn(batch, queries, embed_dim, dtype=dtype),
    }
    made = masks(mask, num_heads, batch, queries, keys, dtype)
    settings = dict(inputs=inputs, embed_dim=embed_dim, num_heads=num_heads, kdim=kdim, vdim=vdim, bias=bias)

    def answer(model):
        leaves = {name: given[name].clone().requires_grad_() for name in inputs.split()}
        query = leaves["query"]
        key = leaves.get("key", query)
        value = leaves.get("value", key)
        call = dict(key_padding_mask=made.get("key_padding"), attn_mask=made.get("attention"))
        with torch.no_grad():
            out, weights = model(query, key, value, **call)
        result = gradients(model, model(query, key, value, need_weights=False, **call)[0], given["out_grad"], leaves)
        return result | {"weights": weights, "out_with_weights": out}

    return Reference("attention", layer, given | made, settings | mask_settings(made), answer, dtype)


def encoder_case(norm_first, activation, mask, checkpoint=False, dtype=torch.float32):
    batch, length, size, heads = 3, 21, 24, 3
    layer = nn.TransformerEncoderLayer(size, heads, 40, 0.0, activation, batch_first=True, norm_first=norm_first)
    norm = nn.LayerNorm(size) if norm_first else None
    model = disturbed(nn.TransformerEncoder(layer, 2, norm, enable_nested_tensor=False))
    given = {name: torch.randn(batch, length, size, dtype=dtype) for name in ("input", "out_grad")}
    made = masks(mask, heads, batch, length, length, dtype)
    settings = dict(d_model=size, nhead=heads, dim_feedforward=40, activation=activation, norm_first=norm_first)

    def answer(model):
        leaf = given["input"].clone().requires_grad_()
        out = model(leaf, mask=made.get("attention"), src_key_padding_mask=made.get("key_padding"))
        return gradients(model, out, given["out_grad"], {"input": leaf})

    settings |= mask_settings(made) | {"checkpoint": checkpoint}
    return Reference("encoder", model, given | made, settings, answer, dtype)


def gru_case(num_layers, bidirectional, batch_first, bias, has_initial, dtype=torch.float32):
    batch, length, size, hidden = 3, 7, 5, 6
    settings = dict(num_layers=num_layers, bidirectional=bidirectional, batch_first=batch_first, bias=bias)
    model = nn.GRU(size, hidden, **settings)
    directions = 1 + bidirectional
    shape = (batch, length) if batch_first else (length, batch)
    given = {
        "input": torch.randn(*shape, size, dtype=dtype),
        "initial": torch.randn(num_layers * directions, batch, hidden, dtype=dtype),
        "out_grad": torch.randn(*shape, hidden * directions, dtype=dtype),
    }

    def answer(model):
        leaves = {name: given[name].clone().requires_grad_() for name in ["input"] + ["initial"] * has_initial}
        output, final = model(leaves["input"], leaves.get("initial"))
        return gradients(model, output, given["out_grad"], leaves) | {"final": final.detach()}

    settings |= dict(input_size=size, hidden_size=hidden, has_initial=has_initial)
    return Reference("gru", model, given, settings, answer, dtype)


def focal(logits, target, gamma, weight, ignore_index):
    """Per-row focal loss straight from its definition."""
    log_p = F.log_softmax(logits, 1)
    safe = target.clamp_min(0)
    log_pt = log_p.gather(1, safe.unsqueeze(1)).squeeze(1)
    row_weight = torch.ones_like(log_pt) if weight is None else weight[safe]
    row_weight = row_weight * (target != ignore_index)
    return -row_weight * (1 - log_pt.exp()) ** gamma * log_pt, row_weight


def loss_case(loss, label_smoothing, weighted, ignored, soft=False, rows=False, spatial=False, gamma=0.0, plus=0.0,
              dtype=torch.float64):
    batch, classes, ignore_index = 13, 7, 3
    tail = (4, 5) if spatial else ()
    given = {"logits": 3 * torch.randn(batch, classes, *tail, dtype=dtype)}
    if soft:
        given["target"] = torch.randn(batch, classes, *tail, dtype=dtype).softmax(1)
    else:
        given["target"] = torch.randint(classes, (batch, *tail))
    if weighted:
        given["class_weights"] = torch.rand(classes, dtype=dtype) + 0.1
    if rows:
        given["row_weights"] = torch.randint(0, 3, (batch,)).to(dtype)
    ignore = ignore_index if ignored else -100
    settings = dict(loss=loss, label_smoothing=label_smoothing, ignore_index=ignore, gamma=gamma, cross_entropy=plus)
    settings |= {"has_class_weights": weighted, "has_row_weights": rows}
    weight = given.get("class_weights")

    def per_row(logits):
        """Losses and weights shaped like class indices, for the cases that F.cross_entropy has no name for."""
        if soft:
            weights = torch.ones_like(given["target"].select(1, 0))
        else:
            weights = torch.ones(classes, dtype=dtype) if weight is None else weight
            weights = weights[given["target"]] * (given["target"] != ignore)
        losses = F.cross_entropy(logits, given["target"], weight, ignore_index=ignore, reduction="none",
                                 label_smoothing=label_smoothing)
        if loss == "focal":
            losses = focal(logits, given["target"], gamma, weight, ignore)[0] + plus * losses
        return losses, weights

    def answer(_):
        leaf = given["logits"].clone().requires_grad_()
        if rows or loss == "focal":
            losses, weights = per_row(leaf)
            scale = given.get("row_weights", torch.ones(batch, dtype=dtype)).view(batch, *[1 for _ in tail])
            mean = (losses * scale).sum() / (weights * scale).sum()
        else:
            mean = F.cross_entropy(leaf, given["target"], weight, ignore_index=ignore, label_smoothing=label_smoothing)
        mean.backward()
        return {"mean": mean.detach().view(1), "grad.logits": leaf.grad}

    return Reference("loss", nn.Identity(), given, settings, answer, dtype)


def mix_case(mix, share, row, column, soft):
    batch, classes = 5, 6
    given = {"images": torch.randn(batch, 3, 20, 30), "target": torch.randint(classes, (batch,))}
    if soft:
        given["target"] = torch.randn(batch, classes).softmax(1)
    settings = dict(mix=mix, share=share, row=row, column=column, num_classes=classes)

    def answer(_):
        transform = (v2.MixUp if mix == "mixup" else v2.CutMix)(num_classes=classes)
        transform._dist = mock.Mock(sample=lambda shape: torch.tensor([share], dtype=torch.float64))
        with mock.patch("torch.randint", side_effect=[torch.tensor([column]), torch.tensor([row])]):
            images, target = transform(given["images"], given["target"])
        return {"images": images, "target": target}

    return Reference("mix", nn.Identity(), given, settings, answer)


def make_cases():
    cases = {}
    for dtype in (torch.float32, torch.float64):
        for inputs, mask in itertools.product(
            ("query", "query key", "query key value"), ("none", "padding", "float", "heads", "padding float", "causal")
        ):
            if mask == "causal" and inputs != "query":
                continue
            cases[f"attention {inputs} {mask} {dtype}"] = attention_case(inputs, mask, 24, 3, 9, 14, dtype=dtype)
        cases[f"attention kdim vdim {dtype}"] = attention_case(
            "query key value", "padding", 24, 2, 9, 14, kdim=10, vdim=6, dtype=dtype
        )
        cases[f"attention no bias {dtype}"] = attention_case("query", "none", 32, 2, 17, 17, bias=False, dtype=dtype)
        # Longer than one block of the kernel, and a head of several vectors.
        cases[f"attention long {dtype}"] = attention_case("query key", "padding", 70, 1, 150, 333, dtype=dtype)
        for norm_first, activation in itertools.product((False, True), ("relu", "gelu")):
            name = f"encoder {'pre' if norm_first else 'post'} {activation} {dtype}"
            cases[name] = encoder_case(norm_first, activation, "padding", dtype=dtype)
        cases[f"encoder checkpoint {dtype}"] = encoder_case(True, "gelu", "causal", checkpoint=True, dtype=dtype)
        for flags in itertools.product((1, 2), (False, True), (False, True), (False, True), (False, True)):
            cases[f"gru {flags} {dtype}"] = gru_case(*flags, dtype=dtype)
    for dtype in (torch.float32, torch.float64):
        for smoothing, weighted, ignored, rows, spatial in itertools.product(
            (0.0, 0.15), (False, True), (False, True), (False, True), (False, True)
        ):
            name = f"smoothing={smoothing} weighted={weighted} ignored={ignored} rows={rows} spatial={spatial} {dtype}"
            cases["cross entropy " + name] = loss_case(
                "cross_entropy", smoothing, weighted, ignored, rows=rows, spatial=spatial, dtype=dtype
            )
            cases["focal " + name] = loss_case(
                "focal", smoothing, weighted, ignored, rows=rows, spatial=spatial, gamma=2.0,
                plus=0.7 if smoothing else 0.0, dtype=dtype
            )
        for smoothing, weighted, rows, spatial in itertools.product((0.0, 0.15), (False, True), (False, True), (False, True)):
            name = f"soft smoothing={smoothing} weighted={weighted} rows={rows} spatial={spatial} {dtype}"
            cases["cross entropy " + name] = loss_case(
                "cross_entropy", smoothing, weighted, False, soft=True, rows=rows, spatial=spatial, dtype=dtype
            )
        cases[f"focal gamma 0 {dtype}"] = loss_case("focal", 0.0, True, False, gamma=0.0, dtype=dtype)
        cases[f"focal gamma 0.5 {dtype}"] = loss_case("focal", 0.0, True, False, gamma=0.5, dtype=dtype)
    for soft in (False, True):
        cases[f"mixup {soft}"] = mix_case("mixup", 0.37, 0, 0, soft)
        for share, row, column in ((0.3, 10, 15), (0.8, 0, 29), (0.01, 19, 0), (1.0, 5, 5)):
            cases[f"cutmix {share} {row} {column} {soft}"] = mix_case("cutmix", share, row, column, soft)
    return cases


def main():
    driver = parity.parse_driver(__doc__)
    torch.manual_seed(1)
    references = make_cases()
    by_model = {reference.model: reference for reference in references.values()}
    given = {name: (reference.model, reference.inputs, reference.settings) for name, reference in references.items()}
    failed, worst = 0, {}
    for name, expected, written in parity.run_both(driver, given, lambda model, *_: by_model[model].answer(model)):
        reference = references[name]
        error, tensor = parity.worst_error(expected, written["result"])
        group = (reference.kind, reference.settings["dtype"])
        worst[group] = max(worst.get(group, 0.0), error)
        if not error <= reference.tolerance():
            failed += 1
            print(f"FAILED {name}: {error:.1e} in {tensor}")
    for (kind, dtype), error in worst.items():
        print(f"{kind:10} {dtype:8} worst error {error:.1e}")
    print(f"{len(references)} cases, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
