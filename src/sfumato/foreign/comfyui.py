"""The graph of nodes that ComfyUI writes into a picture, followed from its end to its beginning."""

import re
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from sfumato.foreign.settings import Translation, listed

Nodes = dict[str, dict[str, Any]]

_VALUES = ("value", "int", "float", "string", "text", "number", "seed", "noise_seed", "prompt", "a")
_TEXTS = (
    "text",
    "text_g",
    "populated_text",
    "wildcard_text",
    "prompt",
    "string",
    "value",
    "positive_prompt",
    "text_positive",
    "clip_l",
    "t5xxl",
    "text_l",
    "text1",
    "text_a",
    "string_a",
    "text_0",
)
_BETWEEN = ("delimiter", "separator", "delim", "clean_whitespace")
_PASS = ("Reroute", "Switch", "Primitive", "Context", "Pipe", "SetNode", "GetNode", "Anything", "Cache")
_ASIDE = frozenset(
    {
        "model",
        "clip",
        "vae",
        "positive",
        "negative",
        "conditioning",
        "guider",
        "sigmas",
        "sampler",
        "noise",
        "control_net",
    }
)
_SETTINGS = frozenset(
    {"noise", "guider", "sigmas", "sampler", "pipe", "basic_pipe", "settings", "seed", "script", "options"}
)
_WIDGETS: dict[str, tuple[str, ...]] = {
    "KSampler": ("seed", "", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": ("add_noise", "noise_seed", "", "steps", "cfg", "sampler_name", "scheduler"),
    "SamplerCustom": ("add_noise", "noise_seed", "", "cfg"),
    "RandomNoise": ("noise_seed", ""),
    "KSamplerSelect": ("sampler_name",),
    "BasicScheduler": ("scheduler", "steps", "denoise"),
    "KarrasScheduler": ("steps", "sigma_max", "sigma_min", "rho"),
    "CFGGuider": ("cfg",),
    "CLIPTextEncode": ("text",),
    "CLIPTextEncodeSDXL": ("width", "height", "crop_w", "crop_h", "", "", "text_g", "text_l"),
    "CLIPSetLastLayer": ("stop_at_clip_layer",),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "UNETLoader": ("unet_name", "weight_dtype"),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "LoraLoaderModelOnly": ("lora_name", "strength_model"),
    "EmptyLatentImage": ("width", "height", "batch_size"),
    "EmptySD3LatentImage": ("width", "height", "batch_size"),
    "PrimitiveNode": ("value", ""),
}
"""What the values of a node are called, in their order: a workflow does not say."""


MOST_NODES = 5000
"""Of a graph that is followed; people's have a few hundred at most."""


def nodes_of(graph: Mapping[str, Any]) -> Nodes:
    """The nodes of a `prompt` graph, by their ids; nothing if it is none."""
    if len(graph) > MOST_NODES:
        return {}
    return {
        str(key): {"class_type": node["class_type"], "inputs": node["inputs"]}
        for key, node in graph.items()
        if isinstance(node, dict)
        and isinstance(node.get("class_type"), str)
        and isinstance(node.get("inputs"), dict)
    }


def nodes_of_workflow(workflow: Mapping[str, Any]) -> Nodes:
    """The same of a `workflow`, as the editor keeps it: of kinds whose values have known names."""
    if len(listed(workflow.get("nodes"))) > MOST_NODES:
        return {}
    origins = {
        link[0]: [str(link[1]), link[2]]
        for link in listed(workflow.get("links"))
        if isinstance(link, list) and len(link) > 2 and isinstance(link[0], int)
    }
    nodes: Nodes = {}
    for node in listed(workflow.get("nodes")):
        if not isinstance(node, dict) or not isinstance(node.get("type"), str):
            continue
        kind, values = node["type"], node.get("widgets_values")
        inputs: dict[str, Any] = {}
        if node.get("mode") not in (2, 4):
            names = _WIDGETS.get(kind, ())
            inputs = dict(values if isinstance(values, dict) else zip(names, listed(values), strict=False))
        for slot in listed(node.get("inputs")):
            if isinstance(slot, dict) and isinstance(slot.get("link"), int) and slot["link"] in origins:
                inputs[str(slot.get("name"))] = origins[slot["link"]]
        nodes[str(node.get("id"))] = {"class_type": kind, "inputs": inputs}
    return nodes


def translate(nodes: Nodes) -> Translation:
    """The sampler that the saved picture begins with, and what it is given."""
    translation = Translation("ComfyUI", "comfy")
    graph = _Graph(nodes, translation)
    sampler = graph.first_sampler()
    if sampler is None:
        translation.notes.append("its settings: no sampler was found in its graph")
        return translation
    settings = [sampler, *graph.upstream(sampler, _SETTINGS)]
    for meaning, names in {
        "seed": ("seed", "noise_seed"),
        "steps": ("steps",),
        "guidance": ("cfg",),
        "sampler": ("sampler_name", "sampler"),
        "spacing": ("scheduler",),
    }.items():
        value = next((found for node in settings if (found := graph.value(node, names)) is not None), None)
        translation.take(meaning, graph.by_class(settings, meaning) if value is None else value)
    denoise = next((found for node in settings if (found := graph.value(node, ("denoise",))) is not None), 1)
    if isinstance(denoise, int | float) and denoise < 1:
        translation.notes.append(f"denoise {denoise:g}")
    for role in ("positive", "negative"):
        texts = next((found for node in settings if (found := graph.texts(node, role))), [])
        translation.take("prompt" if role == "positive" else role, ", ".join(texts))
    for node in settings:
        graph.take_model(node)
    if "BasicGuider" in map(graph.kind, settings):
        translation.take("guidance", 1)
    for node in nodes:
        if graph.kind(node) == "VAELoader":
            translation.take("vae", graph.value(node, ("vae_name",)))
    graph.take_size(sampler)
    return translation


class _Graph:
    """Nodes, and the links between them: a link is the id of a node and the number of its output."""

    def __init__(self, nodes: Nodes, translation: Translation) -> None:
        self.nodes, self.translation = nodes, translation

    def kind(self, node: str) -> str:
        return str(self.nodes[node]["class_type"])

    def inputs(self, node: str) -> dict[str, Any]:
        inputs: dict[str, Any] = self.nodes[node]["inputs"]
        return inputs

    def target(self, value: Any) -> str | None:
        """The node that an input comes from, if it is a link."""
        if isinstance(value, list) and len(value) == 2 and isinstance(value[1], int):
            node = str(value[0])
            return node if node in self.nodes else None
        return None

    def links(self, node: str) -> list[tuple[str, str]]:
        """The inputs of a node that come from others, and from which."""
        pairs = ((name, self.target(value)) for name, value in self.inputs(node).items())
        return [(name, target) for name, target in pairs if target is not None]

    def upstream(
        self, start: str, only: frozenset[str] = frozenset(), but: frozenset[str] = frozenset()
    ) -> list[str]:
        """The nodes before `start`, nearest first, through inputs of these names."""
        seen, waiting = {start: None}, deque([start])
        while waiting:
            for name, target in self.links(waiting.popleft()):
                if target not in seen and (not only or name in only) and name not in but:
                    seen[target] = None
                    waiting.append(target)
        return list(seen)[1:]

    def is_sampler(self, node: str) -> bool:
        kind, inputs = self.kind(node), self.inputs(node)
        named = re.search(r"k?sampler", kind, re.IGNORECASE) and not re.search(
            r"select|config|settings|^Sampler(?!Custom)", kind, re.IGNORECASE
        )
        return bool(named) and (
            kind.startswith("KSampler") or "steps" in inputs or "sigmas" in inputs or "positive" in inputs
        )

    def first_sampler(self) -> str | None:
        """The sampler that a saved picture begins with; those behind it are noted."""
        outputs = [node for node in self.nodes if re.search(r"save", self.kind(node), re.IGNORECASE)]
        outputs += [node for node in self.nodes if re.search(r"preview", self.kind(node), re.IGNORECASE)]
        for start in [*outputs, *(node for node in self.nodes if self.is_sampler(node))]:
            way = [start, *self.upstream(start, but=_ASIDE)]
            samplers = [node for node in way if self.is_sampler(node)]
            if samplers:
                passes = [self.kind(node) for node in way[: way.index(samplers[-1])] if not self._plain(node)]
                self.translation.notes += [f"node {kind}, after the first pass" for kind in passes]
                return samplers[-1]
        return None

    def _plain(self, node: str) -> bool:
        """Whether a node between the sampler and the saved picture leaves the picture as it is."""
        kind = self.kind(node)
        return bool(
            re.search(r"save|preview|^VAEDecode|EmptyLatent|Loader$", kind, re.IGNORECASE)
        ) or kind.startswith(_PASS)

    def value(self, node: str, names: tuple[str, ...]) -> Any:
        """The input of a node under one of `names`, followed to where it is written."""
        for name in names:
            value = self.inputs(node).get(name)
            target = self.target(value)
            if target is None and isinstance(value, str | int | float):
                return value
            if target is not None and name not in ("sampler", "sigmas", "noise"):
                for each in [target, *self.upstream(target)]:
                    found = next(
                        (inputs[key] for inputs in [self.inputs(each)] for key in (*names, *_VALUES)
                         if isinstance(inputs.get(key), str | int | float)),
                        None,
                    )  # fmt: skip
                    if found is not None:
                        return found
        return None

    def by_class(self, settings: list[str], meaning: str) -> str | None:
        """A sampler or schedule that is a node of its own, such as SamplerDPMPP_2M_SDE or KarrasScheduler."""
        form = {"sampler": r"Sampler(?!Custom)(\w+)", "spacing": r"(\w+?)(?:Sampling)?Scheduler"}.get(
            meaning, "$."
        )
        return next((found[1] for node in settings if (found := re.fullmatch(form, self.kind(node)))), None)

    def texts(self, sampler: str, role: str) -> list[str]:
        """What the positive or negative conditioning of a sampler says."""
        texts: list[str] = []
        if role == "negative" and role not in self.inputs(sampler):
            return []
        seen, waiting = {sampler}, self._conditionings(sampler, role)
        while waiting:
            if (node := waiting.pop(0)) in seen:
                continue
            seen.add(node)
            inputs, kind = self.inputs(node), self.kind(node)
            if isinstance(inputs.get(role), str):
                texts.append(inputs[role])
            elif "TextEncode" in kind or ("clip" in inputs and any(name in inputs for name in _TEXTS)):
                texts.append(self.text(node))
            elif "ZeroOut" not in kind:
                if not kind.startswith(_PASS) and "Guider" not in kind:
                    self.translation.notes.append(f"node {kind}, at the {role} prompt")
                waiting[:0] = self._conditionings(node, role)
        return [text for text in texts if text]

    def _conditionings(self, node: str, role: str) -> list[str]:
        """The nodes that the conditioning of a node comes from."""
        inputs = self.inputs(node)
        named = [inputs[name] for name in inputs if name.startswith("conditioning")]
        ways = [inputs[role]] if role in inputs else named
        if not ways and not self.is_sampler(node):
            ways = [inputs[name] for name, _ in self.links(node) if name not in _ASIDE]
        return [target for way in ways if (target := self.target(way)) is not None]

    def text(self, start: str) -> str:
        """The text that a node holds, or that others put together for it."""
        seen: set[str] = set()

        def written(node: str) -> str:
            inputs = self.inputs(node)
            if node in seen or len(seen) > 200:
                return ""
            seen.add(node)
            joins = re.search(r"concat|join|combine", self.kind(node), re.IGNORECASE)
            if joins:
                values = [value for name, value in inputs.items() if name not in _BETWEEN]
            else:
                values = [inputs[name] for name in _TEXTS if inputs.get(name) not in (None, "")][:1]
                values = values or [inputs[name] for name, _ in self.links(node) if name not in _ASIDE]
            targets = [(self.target(value), value) for value in values]
            parts = [
                value if target is None else written(target)
                for target, value in targets
                if target is not None or isinstance(value, str)
            ]
            between = next((inputs[name] for name in _BETWEEN if isinstance(inputs.get(name), str)), ", ")
            return str(between).join(filter(None, parts))

        inputs = self.inputs(start)
        other, main = inputs.get("text_l"), inputs.get("text_g")
        if isinstance(other, str) and isinstance(main, str) and other not in ("", main) and main:
            self.translation.notes.append(f"text_l: {other}")
        return written(start)

    def take_model(self, sampler: str) -> None:
        """The checkpoint and the LoRAs on the way to the sampler's model; other nodes there are noted."""
        target = self.target(self.inputs(sampler).get("model"))
        seen: list[str] = []
        while target is not None and target not in seen:
            seen.append(target)
            inputs = self.inputs(target)
            known = [*self._loras(inputs)]
            for name in ("ckpt_name", "unet_name", "base_ckpt_name"):
                if name in inputs:
                    self.translation.take("model", self.value(target, (name,)))
                    known.append(name)
            if isinstance(inputs.get("multiplier"), float | int) and self.kind(target) == "RescaleCFG":
                self.translation.take("guidance_rescale", inputs["multiplier"])
            elif isinstance(inputs.get("ratio"), float | int) and self.kind(target) == "TomePatchModel":
                self.translation.take("token_merging", inputs["ratio"])
            elif inputs.get("sampling") == "v_prediction":
                self.translation.fields["prediction"] = "v"
            elif not known and not self.kind(target).startswith(_PASS):
                self.translation.notes.append(f"node {self.kind(target)}, at the model")
            links = dict(self.links(target))
            target = links.get("model", next(iter(links.values()), None))
        for each in self.upstream(sampler):
            layer = self.inputs(each).get("stop_at_clip_layer", self.inputs(each).get("clip_skip"))
            if isinstance(layer, int):
                self.translation.fields["clip_skip"] = max(abs(layer) - 1, 0)

    def _loras(self, inputs: dict[str, Any]) -> Iterator[str]:
        """Take the LoRAs of a node, one or a stack of them; the names of their inputs."""
        for name, value in inputs.items():
            if isinstance(value, dict) and isinstance(value.get("lora"), str):
                if value.get("on", True):
                    self.translation.adapter(
                        value["lora"], value.get("strength", 1.0), value.get("strengthTwo")
                    )
                yield name
            elif (slot := re.fullmatch(r"lora(?:_name)?(_?\d*)", name)) and isinstance(value, str):
                weights = [
                    next((inputs[key + slot[1]] for key in keys if key + slot[1] in inputs), None)
                    for keys in (
                        (
                            "strength_model",
                            "model_weight",
                            "model_str",
                            "lora_wt",
                            "lora_model_strength",
                            "strength",
                        ),
                        ("strength_clip", "clip_weight", "clip_str", "lora_clip_strength"),
                    )
                ]
                self.translation.adapter(value, 1.0 if weights[0] is None else weights[0], weights[1])
                yield name

    def take_size(self, sampler: str) -> None:
        """Width and height of the latent that the sampler begins with."""
        for node in self.upstream(sampler, but=_ASIDE):
            if re.search(r"LoadImage|VAEEncode", self.kind(node)):
                self.translation.notes.append(f"node {self.kind(node)}: a picture to begin with")
            width, height = (self.value(node, (name, f"empty_latent_{name}")) for name in ("width", "height"))
            if width is not None and height is not None:
                self.translation.take("width", width)
                self.translation.take("height", height)
                return
            if isinstance(resolution := self.inputs(node).get("resolution"), str):
                self.translation.take("size", resolution)
                return
