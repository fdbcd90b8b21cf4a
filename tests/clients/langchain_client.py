"""What LangChain makes of the app: python langchain_client.py URL MODEL."""

import json
import sys

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAI
from openai import BadRequestError
from pydantic import BaseModel

url, model = sys.argv[1:]
to = {"base_url": f"{url}/v1", "api_key": "none", "model": model, "temperature": 0, "max_retries": 0}
chat = ChatOpenAI(**to)


class Person(BaseModel):
    name: str


def refused(runnable):
    try:
        runnable.invoke("thank you")
    except BadRequestError as error:
        return [error.status_code, error.param]
    return None


before = [SystemMessage("Be kind."), HumanMessage("2+2="), AIMessage("4"), HumanMessage("thank you")]
print(
    json.dumps(
        {
            "whole": chat.invoke("thank you").content,
            "streamed": "".join(chunk.content for chunk in chat.stream("thank you")),
            "limited": chat.bind(max_tokens=2).invoke("thank you").response_metadata["finish_reason"],
            "history": bool(chat.invoke(before).content),
            "completion": isinstance(OpenAI(**to, max_tokens=3).generate(["a", "b"]).generations[1][0].text, str),
            "tools": refused(chat.bind_tools([Person])),
            "json": refused(chat.with_structured_output(Person, method="json_schema")),
        }
    )
)
