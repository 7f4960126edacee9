"""The join file, which `edgewright nodes join NODE` writes for a machine outside the cluster, as settings and files."""

import json
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from edgewright_contract.models import first_fault


class JoinError(ValueError):
    """The file cannot be used; the sentence says why."""


class JoinFile(BaseModel):
    """All that a machine needs to become this node. It holds tokens: carry it over a trusted way, then delete it."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    node: str = Field(min_length=1, max_length=253)
    service_account: str = Field(min_length=1, max_length=253)
    api_url: str
    api_ca: str
    """PEM."""
    api_token: str = Field(min_length=16)
    gateway_url: str
    gateway_ca: str
    """PEM."""
    gateway_token: str = Field(min_length=16)
    root_key: str
    """PEM of the offline root key's public half."""


@dataclass(frozen=True)
class Joined:
    """What the join file turns into."""

    settings: dict[str, str]
    """Names of AgentSettings in capitals."""
    configuration: dict[str, str]
    """File below the configuration folder → text."""
    tokens: dict[str, str]
    """File below the token folder → text; secret."""


def parse(data: bytes) -> JoinFile:
    """Read a join file.

    Raises:
        JoinError: with the field.
    """
    try:
        body: Any = json.loads(data)
        return JoinFile.model_validate(body)
    except ValidationError as error:
        raise JoinError(f"{first_fault(error, whole='top level')}; write it anew with edgewright nodes join") from None
    except ValueError as error:
        raise JoinError(f"not a join file: {error}; write it anew with edgewright nodes join") from None


def joined(file: JoinFile, configuration: str) -> Joined:
    """Settings and files; `configuration` is the folder that the settings name."""
    settings = {
        "NODE": file.node,
        "SERVICE_ACCOUNT": file.service_account,
        "API_URL": file.api_url,
        "API_CA": f"{configuration}/api-ca.pem",
        "GATEWAY_URL": file.gateway_url,
        "GATEWAY_CA": f"{configuration}/gateway-ca.pem",
    }
    kept = {"api-ca.pem": file.api_ca, "gateway-ca.pem": file.gateway_ca, "root.pub": file.root_key}
    return Joined(settings, kept, {"api": file.api_token, "gateway": file.gateway_token})
