"""What a Modbus device says of itself (Application Protocol 1.1b3, 6.21: Read Device Identification), on pymodbus."""

import struct
from typing import Any

FUNCTION = 0x2B
NAMES = ("vendor", "code", "version", "address", "product", "model", "application")
"""The objects of the basic and regular categories, by their identifiers from 0 (6.21, table)."""

_REGULAR = 2


def request(unit: int, first: int = 0) -> bytes:
    """The payload that asks for the objects from `first` on."""
    from pymodbus.pdu.mei_message import ReadDeviceInformationRequest

    return bytes((unit, FUNCTION)) + ReadDeviceInformationRequest(read_code=_REGULAR, object_id=first).encode()


def answer(unit: int, objects: dict[int, str]) -> bytes:
    """The payload that gives these objects: a device's side."""
    from pymodbus.pdu.mei_message import ReadDeviceInformationResponse

    return bytes((unit, FUNCTION)) + ReadDeviceInformationResponse(read_code=_REGULAR, information=objects).encode()


def parse(payload: bytes) -> tuple[dict[str, str], int]:
    """({name: text}, the object to go on with; 0: that was all). Nothing where it is no such answer, or a refusal."""
    from pymodbus.pdu.mei_message import ReadDeviceInformationResponse

    found: Any = ReadDeviceInformationResponse()
    if payload[1:3] != bytes((FUNCTION, 0x0E)):
        return {}, 0
    try:
        found.decode(payload[2:])
    except (struct.error, IndexError, ValueError):
        return {}, 0
    known: dict[int, Any] = {number: text for number, text in found.information.items() if number < len(NAMES)}
    texts = {
        NAMES[number]: text.decode(errors="replace")
        for number, text in known.items()
        if isinstance(text, bytes) and text
    }
    return texts, found.next_object_id if found.more_follows else 0
