"""Others read what deploytk attaches: attestations_reader.py sbom|statement FILE.

CycloneDX's own library holds the SBOM to the schema of its version; in-toto's reads a statement and judges it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(kind: str, text: str) -> str:
    if kind == "sbom":
        from cyclonedx.schema import SchemaVersion
        from cyclonedx.validation.json import JsonStrictValidator

        version = SchemaVersion.from_version(json.loads(text)["specVersion"])
        return str(JsonStrictValidator(version).validate_str(text) or "")
    from google.protobuf.json_format import ParseDict
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement

    read = Statement([], "", {})
    read.pb = ParseDict(json.loads(text), statement_pb2.Statement())
    try:
        read.validate()
    except ValueError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    trouble = main(sys.argv[1], Path(sys.argv[2]).read_text())
    sys.stdout.write(trouble)
    sys.exit(1 if trouble else 0)
