"""What instructor makes of the app: python instructor_client.py URL MODEL."""

import json
import sys

import instructor
from openai import OpenAI
from pydantic import BaseModel

url, model = sys.argv[1:]
client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
thanks = [{"role": "user", "content": "thank you"}]


class Person(BaseModel):
    name: str


def refused(mode):
    try:
        instructor.from_openai(client, mode=mode).chat.completions.create(
            model=model, messages=thanks, response_model=Person, max_retries=0
        )
    except Exception as error:  # its own name for it differs between versions
        return str(error)
    return None


plain = instructor.from_openai(client).chat.completions.create(
    model=model, messages=thanks, response_model=None, temperature=0
)
print(
    json.dumps(
        {
            "whole": plain.choices[0].message.content,
            "tools": refused(instructor.Mode.TOOLS),
            "json": refused(instructor.Mode.JSON),
        }
    )
)
