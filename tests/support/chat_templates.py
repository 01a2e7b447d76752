"""Chat templates of the known shapes, in words of our own: what models of these families are asked in."""

from msgspec import Struct


class Shape(Struct, frozen=True):
    """A chat template, and the special tokens of its model. `left_out`: what no TEMPLATE can say of it."""

    template: str
    begin: str | None
    end: str
    special: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


CHATML = r"""
{%- for m in messages -%}
  {{- "<|im_start|>" + m.role + "\n" + m.content + "<|im_end|>\n" -}}
{%- endfor -%}
{%- if add_generation_prompt %}{{ "<|im_start|>assistant\n" }}{% endif -%}
"""
CHATML_WITH_DEFAULT = (
    r"""{%- if messages[0].role != "system" %}{{ "<|im_start|>system\nYou are a cook.<|im_end|>\n" }}{% endif -%}"""
    + CHATML
)
_TOOLS = r"""
{%- macro told() -%}
  {{- "# Tools\n\nCall them.\n<tools>" -}}
  {%- for tool in tools %}{{ "\n" + (tool | tojson) }}{% endfor -%}
  {{- "\n</tools>\n\n<tool_call>\n{\"name\": <name>, \"arguments\": <JSON>}\n</tool_call>" -}}
{%- endmacro -%}
{%- set given = messages[0].role == "system" -%}
{%- if tools -%}
  {{- "<|im_start|>system\n" -}}HEAD{{- told() + "<|im_end|>\n" -}}
{%- elif given -%}
  {{- "<|im_start|>system\n" + messages[0].content + "<|im_end|>\n" -}}
{%- else -%}SILENT{%- endif -%}
{%- for m in messages -%}
  {%- if m.role == "user" or (m.role == "system" and not loop.first) or (m.role == "assistant" and not m.tool_calls) -%}
    {{- "<|im_start|>" + m.role + "\n" + m.content + "<|im_end|>\n" -}}
  {%- elif m.role == "assistant" -%}
    {{- "<|im_start|>assistant" -}}
    {%- if m.content %}{{ "\n" + m.content }}{% endif -%}
    {%- for call in m.tool_calls -%}
      {{- "\n<tool_call>\n{\"name\": \"" + call.function.name + "\", \"arguments\": " -}}
      {{- (call.function.arguments | tojson) + "}\n</tool_call>" -}}
    {%- endfor -%}
    {{- "<|im_end|>\n" -}}
  {%- elif m.role == "tool" -%}
    {%- if messages[loop.index0 - 1].role != "tool" %}{{ "<|im_start|>user" }}{% endif -%}
    {{- "\n<tool_response>\n" + m.content + "\n</tool_response>" -}}
    {%- if loop.last or messages[loop.index0 + 1].role != "tool" %}{{ "<|im_end|>\n" }}{% endif -%}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{ "<|im_start|>assistant\n" }}{% endif -%}
"""
QWEN_2 = _TOOLS.replace("HEAD", r"""{{- (messages[0].content if given else "You help.") + "\n\n" -}}""").replace(
    "SILENT", r"""{{- "<|im_start|>system\nYou help.<|im_end|>\n" -}}"""
)
QWEN_3 = _TOOLS.replace("HEAD", r"""{%- if given %}{{ messages[0].content + "\n\n" }}{% endif -%}""").replace(
    "SILENT", ""
)
LLAMA_3 = r"""
{{- bos_token -}}
{%- for m in messages -%}
  {{- "<|start_header_id|>" + m.role + "<|end_header_id|>\n\n" + (m.content | trim) + "<|eot_id|>" -}}
{%- endfor -%}
{%- if add_generation_prompt %}{{ "<|start_header_id|>assistant<|end_header_id|>\n\n" }}{% endif -%}
"""
_TAKING_TURNS = r"""
{%- set given = messages[0].role == "system" -%}
{%- set system = messages[0].content if given else "" -%}
{%- for m in (messages[1:] if given else messages) -%}
  {%- if (m.role == "user") != (loop.index0 % 2 == 0) %}{{ raise_exception("they take turns") }}{% endif -%}
"""
MISTRAL = (
    "{{- bos_token -}}" + _TAKING_TURNS + r"""
  {%- if m.role == "user" -%}
    {{- "[INST] " + (system + "\n\n" if system and loop.first else "") + m.content + " [/INST]" -}}
  {%- else %}{{ " " + m.content + eos_token }}{% endif -%}
{%- endfor -%}
"""
)  # fmt: skip
MISTRAL_LAST = (
    "{{- bos_token -}}" + _TAKING_TURNS + r"""
  {%- if m.role == "user" -%}
    {{- "[INST] " + (system + "\n\n" if system and loop.last else "") + m.content + "[/INST]" -}}
  {%- else %}{{ " " + m.content + eos_token }}{% endif -%}
{%- endfor -%}
"""
)  # fmt: skip
LLAMA_2 = (
    _TAKING_TURNS + r"""
  {%- if m.role == "user" -%}
    {%- set said = ("<<SYS>>\n" + system + "\n<</SYS>>\n\n" if system and loop.first else "") + m.content -%}
    {{- bos_token + "[INST] " + (said | trim) + " [/INST]" -}}
  {%- else %}{{ " " + (m.content | trim) + " " + eos_token }}{% endif -%}
{%- endfor -%}
"""
)  # fmt: skip
ZEPHYR = r"""
{%- for m in messages %}{{ "<|" + m.role + "|>\n" + m.content + eos_token + "\n" }}{% endfor -%}
{%- if add_generation_prompt %}{{ "<|assistant|>\n" }}{% endif -%}
"""
_GEMMA = r"""
  {{- "<start_of_turn>" + ("model" if m.role == "assistant" else m.role) + "\n" -}}
  {{- (system + "\n\n" if system and loop.first else "") + (m.content | trim) + "<end_of_turn>\n" -}}
{%- endfor -%}
{%- if add_generation_prompt %}{{ "<start_of_turn>model\n" }}{% endif -%}
"""
GEMMA_3 = "{{- bos_token -}}" + _TAKING_TURNS + _GEMMA
GEMMA_2 = r"""{%- if messages[0].role == "system" %}{{ raise_exception("no system") }}{% endif -%}""" + GEMMA_3
PHI_3 = r"""
{%- for m in messages -%}
  {{- "<|" + m.role + "|>\n" + m.content + "<|end|>\n" -}}
{%- endfor -%}
{%- if add_generation_prompt %}{{ "<|assistant|>\n" }}{% else %}{{ eos_token }}{% endif -%}
"""

_IM = ("<|im_start|>", "<|endoftext|>")
_HEADERS = ("<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>")
_TRIMS = ("leaves spaces",)
SHAPES: dict[str, Shape] = {
    "chatml": Shape(CHATML, None, "<|im_end|>", _IM),
    "chatml-default": Shape(CHATML_WITH_DEFAULT, "<|im_start|>", "<|im_end|>", _IM),
    "qwen-2": Shape(QWEN_2, None, "<|im_end|>", _IM),
    "qwen-3": Shape(QWEN_3, None, "<|im_end|>", _IM),
    "llama-3": Shape(LLAMA_3, "<|begin_of_text|>", "<|eot_id|>", _HEADERS, _TRIMS),
    "mistral": Shape(MISTRAL, "<s>", "</s>"),
    "mistral-last": Shape(MISTRAL_LAST, "<s>", "</s>"),
    "llama-2": Shape(LLAMA_2, "<s>", "</s>", (), _TRIMS),
    "zephyr": Shape(ZEPHYR, "<s>", "</s>"),
    "gemma-2": Shape(GEMMA_2, "<bos>", "<end_of_turn>", ("<start_of_turn>", "<eos>"), ("system", *_TRIMS)),
    "gemma-3": Shape(GEMMA_3, "<bos>", "<end_of_turn>", ("<start_of_turn>", "<eos>"), _TRIMS),
    "phi-3": Shape(PHI_3, "<s>", "<|endoftext|>", ("<|end|>", "<|user|>", "<|assistant|>", "<|system|>")),
}  # fmt: skip
