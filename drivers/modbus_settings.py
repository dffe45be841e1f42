"""The settings of a Modbus device in a cell file, and what they say of its connection."""

from collections.abc import Hashable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from drivers import modbus_codec as modbus
from drivers.driver import File, SettingError
from drivers.modbus_rtu import silence_s
from drivers.serial_line import RATES, Parity, SerialLine
from drivers.transport import Tcp, Tls, Transport

PORT, TLS_PORT = 502, 802


class Serial(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A serial line, 8 data bits. What is left out is as the protocol recommends."""

    port: Annotated[str, Meta(description="Its path.", examples=["/dev/ttyUSB0", "/dev/serial/by-id/usb-FTDI-if00"])]
    baud: Annotated[int, Meta(description="Bits a second.", examples=[9600, 19200])] = 19200
    parity: Annotated[Parity, Meta(description="Parity of each byte.")] = "even"
    stop_bits: Annotated[int, Meta(ge=1, le=2, description="Stop bits of each byte.")] = 1

    def __post_init__(self) -> None:
        if self.baud not in RATES:
            raise SettingError("baud", f"no line has {self.baud} bits a second", f"one of {', '.join(map(str, RATES))}")


class TlsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Modbus/TCP Security: both sides show certificates."""

    trust: Annotated[File, Meta(description="File with the device's certificate, or that of who signed it.")]
    certificate: Annotated[File | None, Meta(description="File with edge's own certificate (PEM).")] = None
    key: Annotated[File | None, Meta(description="File with the key of edge's certificate (PEM).")] = None
    name: Annotated[str | None, Meta(description="Whom the device's certificate is for; its host if left out.")] = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise SettingError(
                "certificate" if self.key is None else "key", "a certificate and its key belong together", "give both"
            )


class ModbusSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A Modbus device: over TCP at a host, or on a serial line."""

    host: Annotated[str | None, Meta(description="Its name or address.", examples=["192.168.10.12"])] = None
    port: Annotated[
        Annotated[int, Meta(ge=1, le=65535)] | None, Meta(description="Its TCP port; 502 if left out, 802 with TLS.")
    ] = None
    serial: Annotated[
        Serial | None, Meta(description="The line that it is on.", examples=[{"port": "/dev/ttyUSB0", "baud": 9600}])
    ] = None
    tls: Annotated[TlsSettings | None, Meta(description="Modbus/TCP Security, where the device has it.")] = None
    framing: Annotated[
        Literal["tcp", "rtu"] | None, Meta(description="rtu: RTU over TCP, as some gateways have it.")
    ] = None
    unit: Annotated[int, Meta(ge=0, le=255, description="Its unit identifier; on a line its number, 1 to 247.")] = 1
    timeout: Annotated[
        float, Meta(gt=0, le=60, description="How long to wait for an answer, in s.", extra={"unit": "s"})
    ] = 1.0
    gap: Annotated[
        int, Meta(ge=0, le=2000, description="Registers or bits that no tag needs, and that may be read along.")
    ] = 0
    depth: Annotated[
        Annotated[int, Meta(ge=1, le=64)] | Literal["auto"],
        Meta(description="Requests that may be on their way at a time; auto finds out how many."),
    ] = 1
    delay: Annotated[
        float,
        Meta(ge=0, le=10, description="Least time between an answer and the next request, in s.", extra={"unit": "s"}),
    ] = 0.0
    max_registers: Annotated[
        int, Meta(ge=1, le=modbus.MAX_READ_REGISTERS, description="Most registers that it gives in one request.")
    ] = modbus.MAX_READ_REGISTERS
    max_bits: Annotated[
        int, Meta(ge=1, le=modbus.MAX_READ_BITS, description="Most bits that it gives in one request.")
    ] = modbus.MAX_READ_BITS

    def __post_init__(self) -> None:
        if self.serial is None:
            if self.host is None:
                raise SettingError("", "a Modbus device has a `host`, or a `serial` line", "host: 192.168.10.12")
            if self.tls is not None and self.rtu:
                raise SettingError("framing", "Modbus/TCP Security has no RTU frames", "leave `framing` out")
        else:
            for key in ("host", "port", "tls"):
                if getattr(self, key) is not None:
                    raise SettingError(
                        key, f"a device on a serial line has no `{key}`", f"leave `{key}` or `serial` out"
                    )
            if self.framing == "tcp":
                raise SettingError("framing", "a serial line has RTU frames", "leave `framing` out")
            if not 1 <= self.unit <= 247:
                raise SettingError("unit", f"no device on a line has the number {self.unit}", "1 to 247; 0 is for all")
        if self.rtu and self.depth != 1:
            raise SettingError("depth", "RTU has one request at a time", "leave `depth` out")

    @property
    def rtu(self) -> bool:
        """Whether frames have a check sum and no transaction identifier."""
        return self.serial is not None or self.framing == "rtu"

    @property
    def silence_s(self) -> float:
        """The least time between an answer and the next request."""
        line = self.serial
        if line is None:
            return self.delay
        return max(self.delay, silence_s(line.baud, 9 + (line.parity != "none") + line.stop_bits))

    @property
    def connection(self) -> Hashable:
        """Equal for devices that share a connection: units behind a gateway, or on a line."""
        if self.serial is not None:
            return "modbus", self.serial.port
        return "modbus", self.host, self.port, self.tls, self.rtu

    def transport(self) -> Transport:
        """What the connection runs over."""
        if (line := self.serial) is not None:
            return SerialLine(line.port, baud=line.baud, parity=line.parity, stop_bits=line.stop_bits)
        host, port, tls = self.host or "", self.port, self.tls
        if tls is None:
            return Tcp(host, port or PORT)
        return Tls(host, port or TLS_PORT, trust=tls.trust, certificate=tls.certificate, key=tls.key, name=tls.name)
