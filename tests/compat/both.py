"""Runs a program as it was written for diffusers, and with the one line changed that imports from it."""

import diffusers
import torch
import transformers

for library in (diffusers.utils.logging, transformers.utils.logging):
    library.set_verbosity_error()
    library.disable_progress_bar()


def run(program, model, library, **names):
    """What the program leaves in `result`; it knows `MODEL` and `names`."""
    names["MODEL"] = str(model)
    exec(program.replace("from diffusers import", f"from {library} import"), names)
    return names["result"]


def apart(program, model, **names):
    """How far the latents in `result` are from diffusers', relative to the largest."""
    theirs, ours = (run(program, model, library, **names) for library in ("diffusers", "sfumato.compat"))
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    assert torch.isfinite(ours).all()
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()
