"""Codes of the errors that people meet often, for programs that say them in words of their own.

An error is one English sentence. It arises in the library, in another process, or in an earlier version that
wrote it into the database, so its code and values are read from the sentence, in this one table.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

_PLACE = r"(?:the \w+(?: prompt)?, )?character (?P<place>\d+)"
"""Where something stands in a prompt; characters are counted from 1."""
_FIELD = r"(?P<field>\w[\w.\[\]~-]*)"
"""The name of what a sentence is about: a field of a request, or one inside it."""
_FILE = r"(?:[^:]*[/\\])?(?P<name>(?!config\.json)[^/\\:]+?)(?:[/\\]config\.json)?"
"""A file, or a folder with its `config.json`; of its path the last part."""

SENTENCES: Mapping[str, str] = {
    "axis_refused": r"^axis (?P<field>.+?), value (?P<value>'.*?'|\".*?\"|\S+): (?P<why>.+)",
    "cell_refused": r"^the cell of (?P<cell>.+?): (?P<why>.+)",
    "body_fault": r"^body(?P<place>[.\[]\w+\]?)* is .*?: (?P<why>must .+)",
    "syntax_not_read": r"^the prompt's syntax: (?P<why>.+)",
    "adapter_left_out": r"^the LoRA (?!.* is for few steps)(?P<name>.+?): (?P<why>.+)",
    "embedding_left_out": r"^the embedding (?P<name>.+?): it is not in",
    "control_left_out": r"^the control (?P<name>.+?): it is not in",
    "model_replaced": r"^the model (?P<name>.+?): it is not (?:served|in your folder); drawn with "
    r"(?P<other>.+)",
    "bracket_not_closed": rf"'(?P<sign>.)' is never closed; .*\({_PLACE}, ",
    "bracket_closes_nothing": rf"'(?P<sign>.)' closes nothing; .*\({_PLACE}, ",
    "bracket_closes_other": r"'(?P<sign>.)' cannot close '(?P<other>.)' of character (?P<place>\d+); ",
    "brace_not_closed": rf"{_PLACE}: this brace is never closed",
    "brace_closes_nothing": rf"{_PLACE}: \}} closes nothing",
    "weight_out_of_range": r"the weight \"?(?P<weight>[^\" ]+)\"? is outside "
    r"(?P<least>\S+) to (?P<most>[^; ]+)",
    "and_without_part": r"AND joins two parts of a prompt, and one of them is empty",
    "prompt_too_long": r"the prompt has (?P<characters>[\d,]+) characters; at most (?P<most>[\d,]+) are read",
    "unknown_wildcard": r"(?:^|: )there is no wildcard '(?P<name>[^']*)'",
    "unknown_style": r"^unknown style '(?P<name>[^']*)'",
    "unknown_adapter": r"^there is no adapter '(?P<name>[^']*)'",
    "unknown_motion_adapter": r"^there is no motion adapter '(?P<name>[^']*)'",
    "unknown_model": r"^model '(?P<name>[^']*)' is not served",
    "too_many_pictures": r"^the request is for (?P<count>[\d,]+) pictures: at most (?P<most>[\d,]+) at once",
    "too_many_pixels": r"^(?P<width>\d+) × (?P<height>\d+) are too many pixels: at most (?P<most>[\d,]+)",
    "too_many_frames": r"^frames is (?P<count>\d+): at most (?P<most>\d+) here",
    "too_many_steps": r"^steps is (?P<count>\d+): at most (?P<most>\d+) here",
    "adapter_taken": r"^adapter '(?P<name>[^']*)' is there already",
    "too_much_teaching": r"^steps are (?P<count>[\d,]+) in all: at most (?P<most>[\d,]+) here",
    "too_many_teachings": r"^(?P<most>\d+) teachings of this key are not over",
    "nothing_taught": r"^nothing is taught on this server",
    "queue_full": r"^(?P<waiting>\d+) jobs are waiting, of (?P<most>\d+) that may",
    "hourly_limit": r"^(?P<count>\d+) pictures were asked for within an hour, of (?P<most>\d+) that may be",
    "inputs_full": r"^the pictures that jobs begin from would take ",
    "no_worker": r"^(?:too many prompts and models are being read|no process that draws answers yet)",
    "body_too_large": r"^the body is too large",
    "picture_not_read": r"(?:^|: )\w+ is not a (?P<kinds>[^:]+) picture$",
    "picture_too_large": r" has (?P<width>\d+)×(?P<height>\d+) pixels; "
    r"the most that is read is (?P<most>[\d,]+) ",
    "picture_moves": r" is an animation; only single pictures are read",
    "picture_damaged": r"^(?:cannot read \w+: |\w+ is damaged: )",
    "picture_gone": r"^a picture that the request begins from is no longer there",
    "picture_refused": r"^the content gate of this server refused the picture",
    "picture_not_kept": r"^the (?:picture cannot be kept|server cannot keep the picture now): (?P<why>.*)",
    "not_finite": r"^the network's answer is not finite",
    "process_ended": r"^the process that drew it ended",
    "learning_ended": r"^the process that learned it ended",
    "machine_lost": r"^(?:the machine that drew it was lost|its worker was ended before it was done)",
    "file_not_read": r"^cannot read (?P<name>.+\.\w+): ",
    "database_away": r"^the database cannot be used now: ",
    "internal_error": r"^internal error",
    "not_in_folder": r"^it is not in (?:the server's|your) folder",
    "replaced_by": r"^(?P<what>.+): drawn with (?P<name>[^,]+)$",
    "prompt_not_found": r"^the prompt: none was found",
    "settings_not_found": r"^its settings: no sampler was found",
    "upscaler_left_out": r"^(?:the upscaler|Hires upscaler:) (?P<name>.+)",
    "start_picture_left_out": r"^node (?P<name>.+): a picture to begin with",
    "node_left_out": r"^node (?P<name>[^,]+), (?:after|at) the (?P<place>.+)",
    "value_out_of_range": rf"^{_FIELD} is .*?: (?:must|Value).* \(allowed: (?P<least>\S+) to (?P<most>\S+)"
    r"\)",
    "value_too_small": rf"^{_FIELD} is .*?: must be (?:at least|greater than) (?P<least>-?[\d.]+)",
    "value_too_large": rf"^{_FIELD} is .*?: must be (?:at most|less than) (?P<most>-?[\d.]+)",
    "value_not_multiple": rf"^{_FIELD} is .*?: (?:must be|with this .* it must be) a multiple of "
    r"(?P<factor>\d+)",
    "value_not_whole": rf"^{_FIELD} is (?P<value>.*?): must be a(?: valid)? (?:integer|whole number)",
    "value_no_number": rf"^{_FIELD} is (?P<value>.*?): must be a (?:valid|finite) (?:number|decimal)",
    "value_no_switch": rf"^{_FIELD} is (?P<value>.*?): must be a valid boolean",
    "value_no_text": rf"^{_FIELD} is .*?: must be a (?:valid )?(?:string|list|tuple|dictionary)",
    "text_too_long": rf"^{_FIELD} is .*?: (?:String|Data|string) should have at most (?P<most>\d+)",
    "text_too_short": rf"^{_FIELD} is .*?: (?:String|Data|string) should have at least (?P<least>\d+)",
    "list_too_long": rf"^{_FIELD} is .*?: \w+ should have at most (?P<most>\d+) items?",
    "list_too_short": rf"^{_FIELD} is .*?: (?:\w+ should have at least \d+ items?|must have more than \d+ "
    r"items?)",
    "value_unknown": rf"^{_FIELD} is (?P<value>.*?): (?:not supported|unknown \w+); (?P<hint>.+)",
    "value_not_of": rf"^{_FIELD} is (?P<value>.*?): must be (?P<choices>(?:'|\d+,).+)",
    "name_unknown": r"^unknown (?P<field>dialect|upscaler|sampler|spacing|parameter|field|method|mask|"
    r"embedding|motion|adapter) '(?P<value>[^']*)'",
    "field_unknown": rf"^{_FIELD} is .*?: no such key is known",
    "value_missing": rf"^{_FIELD} is missing(?:$|;)",
    "name_is_word": rf"^{_FIELD} is .*?: must be letters, digits",
    "not_json": r"^the body is no JSON",
    "field_needs": rf"^{_FIELD} is given without (?P<other_field>\w+)",
    "not_in_clips": rf"^{_FIELD} is given with frames: it is of single pictures",
    "fields_exclude": rf"^{_FIELD} (?:is given with|and) (?P<other_field>\w+)(?: exclude each other|, "
    r"which| 1, which)",
    "fields_same": r"^'?(?P<field>\w+)'? and '?(?P<other_field>\w+)'? are one field",
    "given_twice": r"^prompt is given twice",
    "nothing_to_draw": r"^there is no request to draw",
    "not_to_draw": r"^(?:cannot draw |a request has one prompt)",
    "amounts_missing": r"^(?P<count>\d+) of variation_seed are given",
    "extend_nothing": r"(?:^|: )must be more than 0 on some side",
    "fill_unknown": r"(?:^|: )must be \S+(?:, \S+)* or a colour as #rrggbb",
    "seed_negative": r"(?:^|: )must be at least 0 \(allowed: 0 to (?P<most>\d+)\); for a random seed",
    "half_character": r"half of a surrogate pair|half a character",
    "layers_same_name": r"^two layers are called '(?P<name>[^']*)'",
    "box_empty": r"(?:^|: )box .* is empty:",
    "elements_empty": r"(?:^|: )elements is empty",
    "element_without_box": r"^element (?P<number>\d+) .*: box is missing",
    "box_and_mask": r"(?:^|: )box and mask both say where",
    "interval_wrong": r"^guidance_interval is",
    "window_wrong": r"(?:^|: )start (?P<start>\S+) is not before end (?P<end>\S+)",
    "control_no_picture": r"(?:^|: )must be a picture, or several",
    "travel_beyond": r"^travel names frame (?P<frame>\d+): the clip has (?P<count>\d+) frames",
    "travel_form": r"(?:^|: ).* must be FRAME: TEXT",
    "travel_twice": r"(?:^|: )frame '?(?P<frame>\d+)'? is given twice",
    "travel_adapter": r"^frame '?(?P<frame>\d+)'? of travel calls the adapter '(?P<name>[^']*)'",
    "clip_too_long": r"^interpolate is .*and a clip has at most (?P<most>\d+)",
    "clip_too_fast": r"^interpolate is .*and at most (?P<most>\d+) can be shown",
    "grid_axis_form": r"^the axis .* must be FIELD=VALUE",
    "grid_axis_word": r"^the axis .*: before ~ stands",
    "grid_range_step": r"^the axis .*: the range (?P<range>.+) needs a step",
    "grid_range_long": r"^the axis .*: the range (?P<range>.+) has (?P<count>[\d,]+) values; at most "
    r"(?P<most>[\d,]+)",
    "grid_axes_count": r"^a grid has one to three axes",
    "grid_axes_same": r"^two axes are '?(?P<field>[^';]*)'?;",
    "grid_too_large": r"^the grid has (?P<count>[\d,]+) pictures[;:] at most (?P<most>[\d,]+)",
    "grid_no_axis": rf"^{_FIELD} cannot be an axis",
    "grid_word_absent": r"^(?P<word>'.*?'|\".*?\") is not in the (?P<field>\w+)",
    "grid_of_many": r"^it would be (?P<count>[\d,]+) pictures: leave out count",
    "grid_of_clips": r"^frames is given: a grid has pictures",
    "grid_empty": r"^the grid has no pictures yet",
    "grid_gone": r"^there is no grid",
    "job_gone": r"^there is no job",
    "job_over": r"^job '.*' is over",
    "record_gone": r"^there is no picture '[0-9a-f-]*'",
    "teaching_gone": r"^there is no (?:teaching|sheet)",
    "page_file_gone": r"^the page has no file",
    "key_used": r"^the Idempotency-Key came before",
    "key_needed": r"^an API key is needed",
    "origin_refused": r"^a page of '(?P<origin>[^']*)' may not use",
    "request_slow": r"^the request did not come within (?P<limit>\S+) seconds",
    "field_of_server": rf"^{_FIELD} cannot be chosen over HTTP",
    "upscaler_not_here": r"^upscaler is (?P<value>.*?): here it is one of",
    "picture_lacks_data": r"has no data: a picture comes with its bytes",
    "picture_is_url": r"is a URL: pictures are sent",
    "picture_no_base64": r"is no picture in base64",
    "picture_by_path": r"(?:^|: )a picture is (?:given as its bytes|named by a path|a path)",
    "picture_other_bytes": r"(?:^|: )the bytes are not those of its sha256",
    "picture_other_file": r", is not (?:the file of that name )?here",
    "picture_array": r"^an array of shape",
    "picture_too_heavy": r"(?:takes|holds more than) (?P<bytes>[\d,]+) bytes",
    "picture_far_too_large": r"has far too many pixels",
    "picture_kind": r"has pixels of the kind (?P<kind>\S+): make it RGB",
    "picture_is_video": r"is a video; only single pictures",
    "picture_other_kind": r"^\S+ is (?P<kind>.+?); (?P<kinds>.+) is read: convert it",
    "record_absent": r"^no (?:Sfumato )?record",
    "record_too_large": r"^the record in .* (?:is larger than|lists far more)",
    "record_wrong": r"^the record in .* cannot be read",
    "combinations_too_many": r"^(?P<ways>[\d,]+) combinations of the templates times (?P<count>[\d,]+) "
    r".*at most (?P<most>[\d,]+)",
    "seed_passes": rf"^{_FIELD} is (?P<seed>\d+): with (?P<count>\d+) images the last seed passes",
    "file_not_found": r"^there is no (?P<what>[\w ]+?) '(?P<name>[^']*)'",
    "fast_unknown": r"(?:draws in few steps as it is: leave fast out|has nothing to draw fast with)",
    "fast_steps": r"^steps is (?P<steps>\d+): fast draws in 1 to (?P<most>\d+)",
    "fast_fixed": rf"^{_FIELD} is .*?: fast (?:has learned|draws with)",
    "embedding_unknown": r"^unknown embedding '?(?P<name>[^';]*)'?",
    "embedding_too_long": r"^the embedding '?(?P<name>[^']*?)'? has (?P<count>\d+) vectors; a chunk has "
    r"room",
    "blend_zero": r"^the weights of a blend sum to 0",
    "prompts_too_long": r"^prompts of .* token places are too long",
    "clip_skip_range": r"^clip_skip = (?P<value>\S+) is out of range: this text encoder allows 0 to "
    r"(?P<most>\d+)",
    "and_too_many": r"^AND joins (?P<count>\d+) parts; at most (?P<most>\d+)",
    "adapter_in_negative": r"^the negative prompt calls the adapter '(?P<name>[^']*)'",
    "steps_few": r"^(?:a drawing has 1 step or more|steps must be at least 1)",
    "comment_sign": r"^a1111 prompts cannot say '#'",
    "hypernetwork": r"^hypernetworks are not read",
    "brackets_too_deep": r"nests brackets more than (?P<most>\d+) deep",
    "adapter_tag": r"names no adapter; write <lora",
    "adapter_weights": r"has (?P<count>\d+) weights; at most two are read",
    "adapter_argument": r"; only te= and unet= can be named",
    "weight_not_finite": r"is not finite; write a number|must be a finite number",
    "weight_no_number": r"the weight '?(?P<weight>[^']*?)'? must be a number",
    "compel_says": r"^compel prompts cannot say",
    "compel_swap": r"^\.swap\(\) is not supported",
    "compel_parts": r"^\.\w+\(\) joins (?P<parts>\d+) parts and has (?P<weights>\d+) weights",
    "compel_whole": r"^\.blend\(\) and \.and\(\) take the whole prompt",
    "weights_multiply": r"^the weights around .* multiply to (?P<weight>\S+); together they may be "
    r"(?P<least>\S+) to (?P<most>\S+)",
    "adapter_weight_range": r"^the weight of .* (?:is outside|must be in)",
    "switch_wrong": r"^a switch at (?P<when>.+?) is neither a step",
    "adapter_sign": r"^<lora: lacks its >",
    "adapter_in_brackets": r"^an adapter works at every step",
    "backslash_last": r"^the prompt ends with a backslash",
    "switch_without_when": r"^\[from:to:when\] needs a step",
    "switch_too_many": r"^\[from:to:when\] has two texts at most",
    "switches_too_many": r"^the prompt has (?P<characters>[\d,]+) characters and reads differently at",
    "styled_too_long": r"^with the style '(?P<name>[^']*)' the prompt is longer than (?P<most>[\d,]+)",
    "style_file_wrong": r"^(?:the style file|cannot read the style file)|: \S+ must be a table, \[|needs "
    r"words: a prompt",
    "wildcard_file_wrong": r"the wildcard file (?P<name>\S+)",
    "variable_empty": r"\$\{(?P<name>[^}]*)\} has no value yet",
    "combinations_endless": r"^(?:the template has more than|the combinations take more than|the template "
    r"takes more than) (?P<most>[\d,]+)",
    "template_too_long": r"^the template (?:has|expands to more than) (?P<most>[\d,]+) characters",
    "wildcard_uncounted": r"combinations cannot be counted where a variable names a wildcard",
    "comment_not_closed": r"character (?P<place>\d+): this comment is never closed",
    "template_jinja": r"\{% … %\} is of Jinja",
    "weight_before_option": r"a weight stands before its option: (?P<weight>.+)",
    "template_weight_large": r"a weight is at most (?P<most>\S+)",
    "options_too_many": r"options can be picked|as many options, at most",
    "options_contradict": r"at least (?P<least>\d+) and at most (?P<most>\d+) cannot both be picked",
    "variable_form": r"after \$\{ a name and \} or",
    "options_all_zero": r"every option has the weight 0",
    "options_two_signs": r"how many options to pick has two \$ behind it",
    "option_form": r"is no name=value;",
    "option_bar": r"\| is between options",
    "option_parts": r"%\{ needs two parts",
    "option_count": r"before \$\$ stands how many options",
    "wildcard_circle": r"wildcards go in a circle: (?P<circle>.+)",
    "wildcards_too_many": r"more than (?P<most>[\d,]+) wildcards or",
    "travel_and": r"^travel and AND exclude each other",
    "mask_other_size": r"^the mask has .* pixels and the picture",
    "mask_empty": r"^(?:nothing of the picture is transparent|the mask is black|the mask of the element)",
    "opencv_missing": r" needs opencv",
    "edit_needs_picture": r"^there is no picture to edit|and needs image$|give image$",
    "model_needs_mask": r"is an inpaint model: it needs mask",
    "model_edits_by_words": r"edits by instruction: leave source|reads no instructions; it edits|is an \S+ "
    r"model, which draws into a mask",
    "extend_too_large": r"^extend makes a picture of (?P<width>\d+)×(?P<height>\d+) pixels; the most is "
    r"(?P<most>[\d,]+)",
    "motion_unknown": r"^unknown motion |frames cannot move",
    "no_clips": r"^frames is \d+: .* draws no clips",
    "travel_no_text": r"^travel is given: .* reads no text",
    "motion_not_needed": r"^motion is .*: .* draws clips by itself",
    "context_no_adapter": r"^context_overlap is .*: without a motion adapter",
    "context_overlap_large": r"^context_overlap is .*: must be less than context",
    "context_too_long": r"^context is (?P<count>\d+): the motion adapter .* knows (?P<most>\d+) frames",
    "pia_no_noise": r"^noise_augmentation is given: PIA",
    "pia_amount": r"^motion_amount is .*: PIA knows 0 to (?P<most>\d+)",
    "not_of_this_model": rf"^{_FIELD} is .*?: .* (?:which alone read|has none|is no model that)",
    "control_other_model": r"^the .+? '?(?P<name>[^']*?)'? is for .+; .+ is",
    "control_pictures": r"pictures are given to the control|reads pictures of .* channels|reads pictures "
    r"as they are",
    "adapter_needs_motion": r"^the adapter '?(?P<name>[^']*?)'? changes",
    "adapter_reloaded": r"^the adapter '?.*'? was loaded anew",
    "upscale_not_smaller": r"^upscale is (?P<scale>\S+): of (?P<width>\d+)×(?P<height>\d+) that is no "
    r"smaller",
    "upscale_idle": rf"^{_FIELD} is given, but nothing is enlarged",
    "motion_other_model": r"^the motion adapter '?(?P<name>[^']*?)'? was made for another base",
    "drawn_too_large": r"^this would be drawn at (?P<width>\d+)×(?P<height>\d+) pixels, and at most "
    r"(?P<most>\d+)",
    "inversion_sampler": r"^sampler is .*: with inversion ddpm",
    "decoder_absent": r"has no '?\w+'? decoder: leave decoder",
    "picture_not_finite": r"^the (?:decoded|encoded) picture is not finite",
    "sampler_failed": r"^the sampler '(?P<name>[^']*)' failed",
    "adapter_other_model": r"was made for (?P<kind>.+?), (?:and|which)",
    "adapter_unreadable": r"^\S+ (?:is not an adapter|is a model's folder|holds no adapter)",
    "adapter_is_word": r"^adapter is .*?: must be '(?P<word>[^']*)', the word",
    "teach_name_long": r"^the \w+ is .*: must be a few words, (?P<most>\d+)",
    "teach_name_signs": r"^the name is .*: <>\(\)",
    "teach_class_missing": r"^dreambooth keeps the class",
    "teach_text_encoders": r"^inversion leaves the networks",
    "teach_name_gone": r"^there is another (?P<name>.+) by now",
    "few_pictures": r"^(?P<count>one|\d+) pictures? (?:is|are) little:",
    "common_words": r"^(?P<name>'.*?') is made of common words, .*: '(?P<better>[^']*)' has",
    "note_negative_idle": r"^(?:this model is told the guidance and reads no negative prompt|the negative "
    r"prompt does nothing)",
    "note_no_text": r"^this model moves a picture and reads no text",
    "note_idle": rf"^{_FIELD} (?:does nothing|is given, but nothing is drawn in windows)",
    "note_no_loop": r"^what zooms in or grows is no loop",
    "note_style": r"^the style '(?P<name>[^']*)' was made for",
    "note_windows": r"^(?P<width>\d+)×(?P<height>\d+) is drawn in windows of",
    "note_size": r"^(?P<width>\d+)×(?P<height>\d+) is far from the (?P<native>\S+)",
    "note_long": r"^(?P<width>\d+)×(?P<height>\d+) is longer than 2:1",
    "note_unchanged": r"^strength (?P<strength>\S+) of (?P<steps>\d+) steps is less than one: .*take "
    r"(?P<more>\d+)",
    "note_distilled": rf"^{_FIELD} '?(?P<value>[^' ]+)'? is not (?:for )?what this distilled model has "
    r"learned.*try '?(?P<best>[^']+)'?",
    "note_adapter_hints": r"^the LoRA '(?P<name>[^']*)' is for few steps: it draws well only with "
    r"(?P<settings>.+)",
    "note_cut_off": r"^the (?P<field>\w+) is (?P<count>\d+) tokens too long",
    "file_cut_off": rf"^{_FILE} (?:is truncated|goes on after its last tensor): ",
    "file_pickled": rf"^{_FILE} (?:is [^;]*pickled checkpoint, not safetensors|holds only a pickled)",
    "file_not_safetensors": rf"^{_FILE} is (?:not|[^;:]*, not) safetensors",
    "file_header_damaged": rf"^the (?:header|__metadata__) of {_FILE} (?:is |names |must )",
    "file_of_other_folder": rf"^{_FILE} is .*put it into the (?P<folder>\w+) folder",
    "file_no_control": rf"^{_FILE}(?: is|:) .*(?:; a control is|is no control; )",
    "file_no_motion": rf"^{_FILE}(?: is|:) .*(?:; a motion adapter is|is no motion adapter; )",
    "file_no_embedding": rf"^{_FILE} (?:is not an embedding|has \d+ vectors)",
    "file_no_model": rf"^{_FILE} is (?:not a model folder|no model that is known here|incomplete): ",
    "file_not_json": rf"^{_FILE} (?:is not valid JSON|must hold a JSON object|lists far more)",
    "file_not_finite": rf"^{_FILE}(?: is damaged)?: tensor .* holds NaN",
    "file_too_large": rf"^{_FILE}:? takes (?P<needed>\S+) GB of memory, and .* has (?P<there>\S+) GB",
    "adapter_misfit": rf"^{_FILE}: (?P<count>[\d,]+) of (?P<all>[\d,]+) keys do not fit this model",
    "embedding_misfit": r"^the embedding '?(?P<name>[^']*?)'? (?:has nothing for|is \d+ wide, made for)",
    "file_incomplete": rf"^{_FILE}: .* (?:is|are) (?:missing|unknown)$",
    "file_unsupported": rf"^{_FILE}: (?:unknown key|.* not supported)",
    "file_unusable": r"^(?P<text>.*?(?P<name>[^/\\'\":\s]+\.(?:safetensors|json|ckpt|bin))\b.*)",
}
"""What the sentence of an error with this code has in it; the groups are its values."""
_TABLE = {code: re.compile(sentence) for code, sentence in SENTENCES.items()}


class ErrorCode(NamedTuple):
    """An error for programs: its name, and what its sentence names."""

    code: str
    values: dict[str, str]


def coded(sentence: str) -> ErrorCode | None:
    """The code of an error, where it has one."""
    if not sentence:
        return None
    for code, pattern in _TABLE.items():
        if found := pattern.search(sentence):
            return ErrorCode(code, {name: _plain(value) for name, value in found.groupdict().items()})
    return None


def _plain(value: str) -> str:
    """A number without the commas that part its thousands, as programs read it."""
    return value.replace(",", "") if re.fullmatch(r"[\d,]+", value) else value
