"""MQTT with a real broker: readings in, snapshots and Home Assistant's discovery out, and a broker that goes away."""

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Callable

import aiomqtt
import pytest

from edgewright_agent.serving import mqtt
from edgewright_agent.serving.live import Live, Reading, Snapshot
from edgewright_agent.serving.metrics import Metrics
from edgewright_agent.serving.settings import ServingSettings, from_environment
from edgewright_agent.serving.slots import Slots

broker_module = pytest.importorskip("amqtt.broker", reason="amqtt, the test broker, is not installed")
NOW = 1_800_000_000.0


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


async def started(port: int):
    plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    config = {"listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}}, "plugins": plugins}
    broker = broker_module.Broker(config)
    await broker.start()
    return broker


async def until(probe: Callable[[], object], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not probe():  # noqa: ASYNC110 - what is waited for happens in a broker
            await asyncio.sleep(0.02)


@pytest.fixture
def live() -> Live:
    metrics = Metrics()
    return Live(Slots(metrics), metrics)


async def test_readings_come_in_and_snapshots_go_out_also_over_a_new_broker(port, live, caplog):
    caplog.set_level(logging.CRITICAL, "amqtt")
    settings = ServingSettings(mqtt_host="127.0.0.1", mqtt_port=port, mqtt_topic="meter/power", node="n1")
    broker, seen = await started(port), {}
    running = asyncio.create_task(mqtt.Mqtt(settings, live, lambda: NOW).run())

    async def listen() -> None:
        async with aiomqtt.Client("127.0.0.1", port, identifier="listener") as client:
            await client.subscribe("edgewright/#")
            await client.subscribe("homeassistant/#")
            async for received in client.messages:
                seen[str(received.topic)] = received.payload.decode()

    async def publish(*payloads: bytes) -> None:
        async with aiomqtt.Client("127.0.0.1", port, identifier="meter") as client:
            for payload in payloads:
                await client.publish("meter/power", payload, qos=1)

    listening = asyncio.create_task(listen())
    try:
        await until(lambda: seen.get("edgewright/n1/availability") == "online")
        await asyncio.sleep(0.3)  # until the subscription stands
        await publish(b'{"t": 1799999990, "watts": 70.5}', b"not a number", b'{"watts": 1e9}', b"120")
        await until(lambda: len(live.recent) == 2)
        assert list(live.recent) == [Reading(1_799_999_990, 70.5), Reading(int(NOW), 120.0)]
        live.snapshots["nilm"] = Snapshot(int(NOW), "nilm", 3, "int8", "kettle", 0.93, 1800.0)
        await until(lambda: "edgewright/n1/nilm" in seen)
        assert json.loads(seen["edgewright/n1/nilm"])["appliance"] == "kettle"
        await until(lambda: sum(topic.startswith("homeassistant/sensor/edgewright_n1_nilm_") for topic in seen) == 3)
        power = json.loads(seen["homeassistant/sensor/edgewright_n1_nilm_power/config"])
        assert (power["state_topic"], power["unit_of_measurement"]) == ("edgewright/n1/nilm", "W")
        listening.cancel()
        await broker.shutdown()
        broker = await started(port)
        listening = asyncio.create_task(listen())
        seen.clear()
        await until(lambda: "edgewright/n1/nilm" in seen)  # told anew, because the new broker knows nothing
    finally:
        for task in (running, listening):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, aiomqtt.MqttError):
                await task
        await broker.shutdown()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"x",
        b"NaN",
        b"null",
        b"[1]",
        b'{"t": 1}',
        b'{"watts": "5"}',
        b"1e7",
        b'{"watts":1,"t":1800009999}',
        b"1" * 5000,
    ],
)
def test_odd_messages_are_no_readings(payload):
    assert mqtt.reading(payload, NOW) is None


def test_a_message_may_be_a_number_or_an_object():
    assert mqtt.reading(b"12", NOW) == Reading(int(NOW), 12.0)
    assert mqtt.reading(b'{"watts": 12.5, "t": 5.9}', NOW) == Reading(5, 12.5)


def test_settings_come_from_the_environment_and_empty_ones_count_as_absent():
    found = from_environment({"EDGEWRIGHT_AGENT_MQTT_HOST": "broker", "EDGEWRIGHT_AGENT_MQTT_PORT": "", "OTHER": "x"})
    assert (found.mqtt_host, found.mqtt_port, found.mqtt_topic) == ("broker", 1883, None)
    with pytest.raises(ValueError, match=r"EDGEWRIGHT_AGENT_MQTT_PORT: .* 65535"):
        from_environment({"EDGEWRIGHT_AGENT_MQTT_PORT": "99999"})
