"""What the server process is told from outside: EDGEWRIGHT_AGENT_ variables, which the supervisor passes on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

PREFIX: Final = "EDGEWRIGHT_AGENT_"


def _listenable(address: str) -> str:
    host, _, port = address.rpartition(":")
    if not host or (":" in host and not (host[0] == "[" and host[-1] == "]")):
        raise ValueError(f"{address!r} is not host:port; an IPv6 host stands in brackets")
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65_535):
        raise ValueError(f"{address!r} has no port from 1 to 65535")
    return address


class ServingSettings(msgspec.Struct, frozen=True):
    """Settings of the server; every one may be left out."""

    readings_token_file: Path | None = None
    """File with the token that a pusher of readings from another host must send; none: only this host may push."""
    frames_path: Path | None = None
    """Unix socket for windows as length-prefixed frames; none: not opened."""
    grpc_address: str | None = None
    """host:port for gRPC, an IPv6 host in brackets; none: off. Needs the extra `edgewright-agent[grpc]`."""
    mqtt_host: str | None = None
    """Broker to take readings from and to send snapshots to; none: MQTT is off."""
    mqtt_port: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = 1883
    mqtt_user: str | None = None
    mqtt_password_file: Path | None = None
    mqtt_ca: Path | None = None
    """PEM file of the broker's certificate authority; set, it switches TLS on."""
    mqtt_topic: str | None = None
    """Topic of the readings: a number of watts, or {"watts": …, "t": Unix seconds}; none: only snapshots are sent."""
    mqtt_prefix: str = "edgewright"
    """First part of the topics that snapshots go to."""
    mqtt_discovery: str | None = "homeassistant"
    """Home Assistant's discovery prefix; empty: no discovery."""
    busy_poll_microseconds: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 150
    """After an answer the server stays awake for so long when requests follow each other that fast; 0: never."""
    node: str = "edge"
    """Name of the node, as the supervisor has it."""


def from_environment(environment: Mapping[str, str]) -> ServingSettings:
    """Read the settings; an empty variable counts as absent.

    Raises:
        ValueError: a value that does not fit, with the name of its variable.
    """
    settings = ServingSettings()
    for name in ServingSettings.__struct_fields__:
        if given := environment.get(PREFIX + name.upper()):
            settings = msgspec.structs.replace(settings, **{name: _read(name, given)})
    return settings


def _read(name: str, given: str) -> Any:
    kind = next(field.type for field in msgspec.structs.fields(ServingSettings) if field.name == name)
    try:
        found = msgspec.convert(given, kind, strict=False, dec_hook=lambda wanted, value: wanted(value))
        return _listenable(found) if name == "grpc_address" else found
    except (msgspec.ValidationError, ValueError) as error:
        raise ValueError(f"{PREFIX}{name.upper()}: {error}") from None
