"""MQTT: readings come from one topic, snapshots go to others, Home Assistant finds them by itself.

source → live.take → Snapshot → publish. The connection is made anew whenever it ends.
"""

import asyncio
import json
import logging
import random
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiomqtt
import msgspec

from edgewright_agent.backoff import pause_seconds
from edgewright_agent.serving.live import Live, Reading, Snapshot
from edgewright_agent.serving.settings import ServingSettings
from edgewright_agent.serving.window import CLOCK_SECONDS, is_reading

log = logging.getLogger(__name__)
FIRST_PAUSE: Final = 1.0
RETRY_SECONDS: Final = 30.0
MAX_PAYLOAD: Final = 4096


class _Watts(msgspec.Struct):
    watts: float
    t: float | None = None


_decoder = msgspec.json.Decoder(_Watts | float)


def reading(payload: bytes, now: float) -> Reading | None:
    """The reading in a message: a number of watts, or {"watts": …, "t": Unix seconds}; none where it is neither."""
    if len(payload) > MAX_PAYLOAD:
        return None
    try:
        value = _decoder.decode(payload)
    except msgspec.MsgspecError:
        return None
    watts, second = (value, now) if isinstance(value, float) else (value.watts, now if value.t is None else value.t)
    if not is_reading(second, watts) or second > now + CLOCK_SECONDS:
        return None
    return Reading(int(second), watts)


def discovery(settings: ServingSettings, model: str) -> dict[str, str]:
    """Home Assistant's configuration messages of one model, by topic: which appliance, its probability, power."""
    state = f"{settings.mqtt_prefix}/{settings.node}/{model}"
    device = {"identifiers": [f"edgewright_{settings.node}"], "name": f"Edgewright {settings.node}"}
    entities: Mapping[str, Mapping[str, Any]] = {
        "appliance": {"name": "Appliance", "value_template": "{{ value_json.appliance }}"},
        "probability": {
            "name": "Probability",
            "value_template": "{{ (100 * value_json.probability) | round }}",
            "unit_of_measurement": "%",
        },
        "power": {
            "name": "Power",
            "value_template": "{{ value_json.watts | round }}",
            "unit_of_measurement": "W",
            "device_class": "power",
        },
    }
    found = {}
    for key, entity in entities.items():
        unique = f"edgewright_{settings.node}_{model}_{key}".replace(".", "_")
        common = {"unique_id": unique, "state_topic": state, "device": device, "availability_topic": _alive(settings)}
        found[f"{settings.mqtt_discovery}/sensor/{unique}/config"] = json.dumps({**entity, **common})
    return found


def message(snapshot: Snapshot) -> str:
    """A snapshot as it is published."""
    return json.dumps(
        {
            "t": snapshot.t,
            "version": snapshot.version,
            "variant": snapshot.variant,
            "appliance": snapshot.appliance,
            "probability": round(snapshot.probability, 4),
            "watts": round(snapshot.watts, 1),
        }
    )


def _alive(settings: ServingSettings) -> str:
    return f"{settings.mqtt_prefix}/{settings.node}/availability"


class Mqtt:
    """One connection to the site's broker."""

    def __init__(self, settings: ServingSettings, live: Live, clock: Callable[[], float]) -> None:
        self._settings, self._live, self._clock = settings, live, clock
        self._sent: dict[str, int] = {}
        self._announced: set[str] = set()

    async def run(self) -> None:
        """Connect, and again whenever the connection ends, until cancelled."""
        failures, rng = 0, random.Random()  # noqa: S311 - a spread, not a secret
        while True:
            try:
                async with self._client() as client:
                    failures = 0
                    await self._serve(client)
            except (aiomqtt.MqttError, OSError, ValueError) as error:
                failures += 1
                pause = pause_seconds(failures, FIRST_PAUSE, RETRY_SECONDS, rng)
                log.warning("MQTT %s: %s; next try in %.1f s.", self._settings.mqtt_host, error, pause)
                await asyncio.sleep(pause)

    def _client(self) -> aiomqtt.Client:
        settings = self._settings
        secret = settings.mqtt_password_file
        return aiomqtt.Client(
            settings.mqtt_host or "",
            settings.mqtt_port,
            username=settings.mqtt_user,
            password=secret.read_text().strip() if secret else None,
            identifier=f"edgewright-{settings.node}",
            tls_context=ssl.create_default_context(cafile=str(settings.mqtt_ca)) if settings.mqtt_ca else None,
            will=aiomqtt.Will(_alive(settings), b"offline", qos=1, retain=True),
        )

    async def _serve(self, client: aiomqtt.Client) -> None:
        self._announced.clear()
        await client.publish(_alive(self._settings), b"online", qos=1, retain=True)
        if self._settings.mqtt_topic:
            await client.subscribe(self._settings.mqtt_topic, qos=1)
        both = [asyncio.create_task(self._send(client)), asyncio.create_task(self._receive(client))]
        try:
            await asyncio.gather(*both)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    async def _receive(self, client: aiomqtt.Client) -> None:
        refused = 0
        async for received in client.messages:
            payload = received.payload
            found = reading(payload, self._clock()) if isinstance(payload, bytes) else None
            if found is not None:
                await self._live.take([found])
                continue
            refused += 1
            if refused & (refused - 1) == 0:  # the 1st, 2nd, 4th, 8th …: a broken meter must not fill the log
                log.warning("MQTT %s: %d messages held no plausible reading.", received.topic, refused)
        raise aiomqtt.MqttError("the connection ended")

    async def _send(self, client: aiomqtt.Client) -> None:
        while True:
            for name, snapshot in list(self._live.snapshots.items()):
                if self._sent.get(name) == snapshot.t and name in self._announced:
                    continue
                if name not in self._announced and self._settings.mqtt_discovery:
                    for topic, text in discovery(self._settings, name).items():
                        await client.publish(topic, text, qos=1, retain=True)
                self._announced.add(name)
                topic = f"{self._settings.mqtt_prefix}/{self._settings.node}/{name}"
                await client.publish(topic, message(snapshot), qos=1, retain=True)
                self._sent[name] = snapshot.t
            await asyncio.sleep(1)
