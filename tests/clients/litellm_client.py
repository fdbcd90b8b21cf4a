"""What LiteLLM makes of the app: python litellm_client.py URL MODEL."""

import json
import sys

import litellm

url, model = sys.argv[1:]
to = {"model": f"openai/{model}", "api_base": f"{url}/v1", "api_key": "none", "temperature": 0, "num_retries": 0}
thanks = [{"role": "user", "content": "thank you"}]
tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


def refused(**fields):
    try:
        litellm.completion(messages=thanks, **to, **fields)
    except litellm.BadRequestError as error:
        return str(error)
    return None


stream = litellm.completion(messages=thanks, stream=True, **to)
print(
    json.dumps(
        {
            "whole": litellm.completion(messages=thanks, **to).choices[0].message.content,
            "streamed": "".join(chunk.choices[0].delta.content or "" for chunk in stream),
            "tools": refused(tools=[tool]),
            "json": refused(response_format={"type": "json_object"}),
        }
    )
)
