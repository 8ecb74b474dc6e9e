"""IP-Adapters as they were published, narrow and random: two tables of tensors by their names."""

import torch


def states(unet, kind, width, seed=0):
    """The tables of an IP-Adapter of `kind` for diffusers' `unet`, whose encoder answers `width` wide."""
    generator = torch.Generator().manual_seed(seed)

    def matrix(out, into):
        return torch.randn(out, into, generator=generator) / into**0.5

    def vector(size, around=0.0):
        return around + 0.2 * torch.randn(size, generator=generator)

    def norm(name, size):
        return {f"{name}.weight": vector(size, 1.0), f"{name}.bias": vector(size)}

    def linear(name, out, into):
        return {f"{name}.weight": matrix(out, into), f"{name}.bias": vector(out)}

    context = unet.config.cross_attention_dim
    if kind == "base":
        projection = {**linear("proj", 4 * context, width), **norm("norm", context)}
    elif kind == "full":
        projection = {
            **linear("proj.0", width, width),
            **linear("proj.2", context, width),
            **norm("proj.3", context),
        }
    else:
        hidden, tokens = 20, 5
        projection = {
            "latents": torch.randn(1, tokens, hidden, generator=generator),
            **linear("proj_in", hidden, width),
            **linear("proj_out", context, hidden),
            **norm("norm_out", context),
        }
        for layer in range(4):
            attention, forward = f"layers.{layer}.0", f"layers.{layer}.1"
            projection |= norm(f"{attention}.norm1", hidden) | norm(f"{attention}.norm2", hidden)
            projection |= norm(f"{forward}.0", hidden) | {
                f"{attention}.to_q.weight": matrix(128, hidden),
                f"{attention}.to_kv.weight": matrix(256, hidden),
                f"{attention}.to_out.weight": matrix(hidden, 128),
                f"{forward}.1.weight": matrix(4 * hidden, hidden),
                f"{forward}.3.weight": matrix(hidden, 4 * hidden),
            }
    # diffusers numbers the attentions as it meets them: way down, way up, middle; only those to texts count
    names = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    modules = dict(unet.named_modules())
    attentions = {}
    for index, name in enumerate(names):
        out = modules[name.removesuffix(".processor")].to_k.out_features
        for letter in "kv":
            attentions[f"{2 * index + 1}.to_{letter}_ip.weight"] = matrix(out, context)
    return {"image_proj": projection, "ip_adapter": attentions}


def flat(tables):
    """The same as one table, as in a safetensors file."""
    return {f"{part}.{name}": tensor for part, held in tables.items() for name, tensor in held.items()}
