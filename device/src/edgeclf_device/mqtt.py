"""A hook that publishes each change of the decision to an MQTT broker."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

from edgeclf_device.errors import DependencyError, UsageError
from edgeclf_device.hooks import GRACE_S, TIMEOUT_S, WAITING, Change, Changes
from edgeclf_device.sources import Note
from edgeclf_device.streaming import Event

USER, PASSWORD = "EDGECLF_MQTT_USER", "EDGECLF_MQTT_PASSWORD"
"""Environment variables: what stands on a command line is there for every user of the machine to see."""

PORT, TLS_PORT = 1883, 8883
CONNECT_S, KEEPALIVE_S, RETRY_S = 5, 15, (1, 30)
MAX_TOPIC_BYTES = 60_000


@dataclass(frozen=True, kw_only=True)
class MqttAddress:
    """Where to publish, by TLS or not; with ``retain`` the broker keeps the last message for those who come later."""

    host: str
    port: int
    topic: str
    tls: bool = False
    retain: bool = False

    @property
    def status_topic(self) -> str:
        """Where ``online`` and ``offline`` are published, always retained."""
        return f"{self.topic}/status"


def parse_mqtt(url: str) -> MqttAddress:
    """``mqtt://HOST[:PORT]/TOPIC``, with ``mqtts`` for TLS, and ``?retain`` behind it to have messages retained.

    Raises:
        UsageError: it is not of this form, names a user or password, or the topic is none to publish to.
    """
    form = "--mqtt takes mqtt://HOST[:PORT]/TOPIC, mqtts://… for TLS, ?retain behind it to have the last message kept"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"{form}, but it can't be read: {error}.") from None
    if "@" in parts.netloc:  # its text may be a password, and is not repeated
        raise UsageError(f"{form}, without user and password; set {USER} and {PASSWORD} in the environment.")
    if parts.scheme not in ("mqtt", "mqtts") or not host or parts.query not in ("", "retain") or parts.fragment:
        raise UsageError(f"{form}, but it is {url!r}.")
    try:
        host.encode("idna")
    except UnicodeError:
        raise UsageError(f"{form}, but {host:.80} is no name of a host.") from None
    topic = unquote(parts.path[1:])
    if not topic or set(topic) & set("+#\0") or len(topic.encode()) > MAX_TOPIC_BYTES:
        raise UsageError(f"{form}, but {topic!r:.80} is no topic to publish to: one or more words, without + and #.")
    tls = parts.scheme == "mqtts"
    default = TLS_PORT if tls else PORT
    return MqttAddress(host=host, port=port or default, topic=topic, tls=tls, retain=parts.query == "retain")


def open_mqtt(url: str) -> MqttHook:
    """The hook of ``--mqtt URL``, with the user and password that the environment names.

    Raises:
        UsageError: see ``parse_mqtt``.
        DependencyError: paho-mqtt is not installed.
    """
    return MqttHook(parse_mqtt(url), user=os.environ.get(USER), password=os.environ.get(PASSWORD))


class MqttHook:
    """Publishes the event as JSON at each change, at least once (QoS 1), and connects again whenever it is cut off.

    Messages go out one by one, each when the one before has arrived; without a connection the last ones wait.
    ``TOPIC/status`` says ``online``, and ``offline`` after ``close`` or, as this client's last will, when the broker
    misses it. A server's certificate is checked against those of this machine, or of the file in ``SSL_CERT_FILE``.

    Args:
        address: see ``parse_mqtt``.
        user, password: for the broker; None: none.

    Raises:
        DependencyError: paho-mqtt is not installed.
    """

    def __init__(self, address: MqttAddress, *, user: str | None = None, password: str | None = None) -> None:
        self._address = address
        self._news = threading.Condition()
        self._arrived: set[int] = set()
        self._connected = self._complained = self._abandoned = False
        self._client = self._new_client(user, password)
        self._name = f"The MQTT broker {address.host}:{address.port}"
        self._changes = Changes(self._name, self._deliver, self._abandon)
        self._client.loop_start()

    def __call__(self, event: Event) -> None:
        """See ``Hook``."""
        self._changes.put(event)

    def take_notes(self) -> list[Note]:
        """See ``Hook``."""
        return self._changes.take_notes()

    def close(self, *, finish: bool = True) -> None:
        """See ``Hook``. A broker that does not answer is waited for at most ``TIMEOUT_S`` seconds."""
        try:
            self._changes.close(TIMEOUT_S if finish and self._connected else GRACE_S)
            if self._connected:
                self._abandoned = False
                self._publish(self._address.status_topic, "offline", retain=True, timeout_s=GRACE_S)
        finally:
            self._client.disconnect()
            # It would wait for a name to be looked up; that thread is a daemon, so it may be left behind.
            ending = threading.Thread(target=self._client.loop_stop, daemon=True)
            ending.start()
            ending.join(GRACE_S)

    def __enter__(self) -> MqttHook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(finish=error is None)

    def _new_client(self, user: str | None, password: str | None) -> Any:
        try:
            from paho.mqtt.client import Client
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError as error:
            raise DependencyError(
                f'Publishing by MQTT needs paho-mqtt ({error}); install it: pip install "edgeclf-device[mqtt]".'
            ) from error
        client = Client(CallbackAPIVersion.VERSION2)
        client.on_connect = self._on_connect
        client.on_connect_fail = lambda *_: self._complain("can't be reached")
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.connect_timeout = CONNECT_S
        client.reconnect_delay_set(*RETRY_S)
        client.will_set(self._address.status_topic, "offline", qos=1, retain=True)
        if user is not None:
            client.username_pw_set(user, password)
        if self._address.tls:
            client.tls_set()
        client.connect_async(self._address.host, self._address.port, keepalive=KEEPALIVE_S)
        return client

    def _deliver(self, change: Change) -> None:
        with self._news:
            self._news.wait_for(lambda: self._connected or self._abandoned)
        self._publish(self._address.topic, change.line, retain=self._address.retain, timeout_s=None)

    def _publish(self, topic: str, text: str, *, retain: bool, timeout_s: float | None) -> None:
        """Publish, and wait until the broker has it; the client sends again what a broken line has lost."""
        with self._news:
            if self._abandoned:
                return
            self._arrived.clear()
        message = self._client.publish(topic, text.encode("utf-8", "backslashreplace"), qos=1, retain=retain)
        with self._news:
            self._news.wait_for(lambda: message.mid in self._arrived or self._abandoned, timeout_s)

    def _abandon(self) -> None:
        with self._news:
            self._abandoned = True
            self._news.notify_all()

    # What follows is called in the client's thread.

    def _on_connect(self, client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._complain(f"refuses the connection ({reason})")
            return
        client.publish(self._address.status_topic, "online", qos=1, retain=True)
        with self._news:
            again, self._complained, self._connected = self._complained, False, True
            self._news.notify_all()
        if again:
            self._changes.note("info", f"{self._name} is connected again.")

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        with self._news:
            self._connected = False
        if reason.is_failure:
            self._complain(f"is gone ({reason})")

    def _on_publish(self, _client: Any, _data: Any, message_id: int, _reason: Any, _properties: Any) -> None:
        with self._news:
            self._arrived.add(message_id)
            self._news.notify_all()

    def _complain(self, problem: str) -> None:
        """Note a problem, once until the connection is there again."""
        if not self._complained:
            self._complained = True
            self._changes.note("warning", f"{self._name} {problem}; the last {WAITING} changes wait for it.")
