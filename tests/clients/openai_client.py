"""What OpenAI's own client, 2 or 3, makes of the app: python openai_client.py URL MODEL."""

import json
import sys

import openai

url, model = sys.argv[1:]
client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
thanks = [{"role": "user", "content": "thank you"}]
tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
person = {"name": "person", "schema": {"type": "object", "properties": {}}}


def refused(**fields):
    try:
        client.chat.completions.create(model=model, messages=thanks, **fields)
    except openai.BadRequestError as error:
        return [error.status_code, error.param, error.code]
    return None


whole = client.chat.completions.create(model=model, messages=thanks, temperature=0)
stream = client.chat.completions.create(
    model=model, messages=thanks, temperature=0, stream=True, stream_options={"include_usage": True}
)
chunks = list(stream)
listed = client.completions.create(model=model, prompt=["a", "b"], max_tokens=2, temperature=0)
try:
    client.models.retrieve("other/one")
    missing = None
except openai.NotFoundError as error:
    missing = error.code
print(
    json.dumps(
        {
            "version": openai.__version__,
            "whole": whole.choices[0].message.content,
            "streamed": "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices),
            "same_usage": chunks[-1].usage == whole.usage,
            "models": [one.id for one in client.models.list()] + [client.models.retrieve(model).id],
            "created": client.models.retrieve(model).created,
            "prompts": [choice.index for choice in listed.choices],
            "missing": missing,
            "tools": refused(tools=[tool]),
            "json": refused(response_format={"type": "json_schema", "json_schema": person}),
            "logprobs": refused(logprobs=True, top_logprobs=2),
        }
    )
)
